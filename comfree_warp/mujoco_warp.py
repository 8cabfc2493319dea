"""`import comfree_warp.mujoco_warp as mjwarp`: the installed MuJoCo Warp under its documented name.

The name is bound to the very module object of `mujoco_warp`, so a class, a kernel cache or a
patched function is the same one whichever name it was reached by.
"""

import sys

import mujoco_warp

sys.modules[__name__] = mujoco_warp

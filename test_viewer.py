"""Run a MuJoCo model on one of three engines and watch it, in MuJoCo's window or a browser.

    python test_viewer.py --model benchmark/test_data/humanoid/humanoid.xml
    python test_viewer.py --compare mjc,mjwarp,comfree    # side by side, from the same start
    python test_viewer.py --compare comfree:paper,comfree:warm
    python test_viewer.py --backend web                   # a page at http://127.0.0.1:8080

Exit status: 0 window closed, Ctrl-C, SIGTERM, or --nsteps taken; 1 the X server is gone; 2 wrong
use, or no window can be opened here; 130 or 143 interrupted while it was starting.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

from mjsim import options
from mjsim.cli import variables, view

if __name__ == "__main__":
    variables.warn_of_unknown()
    options.run(view.InteractiveSettings, view.main, description=__doc__.split("\n\n")[0])

"""Run a MuJoCo model headless on one of three engines; print how fast and whether it held.

    python test_headless.py --engine comfree --model benchmark/test_data/primitives.xml
    MJSIM_ENGINE=mjwarp WARP_DEVICE=cuda:0 MJSIM_NWORLD=1024 python test_headless.py

Exit status: 0 done, 1 a world diverged or the summary could not be written, 2 wrong use, 3 contacts
or constraint rows were lost, or there was no memory for them, 130 or 143 interrupted (Ctrl-C,
SIGTERM). What went wrong during the run is repeated in its last line.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

from mjsim import options
from mjsim.cli import run, variables

if __name__ == "__main__":
    variables.warn_of_unknown()
    options.run(run.HeadlessSettings, run.main, description=__doc__.split("\n\n")[0])

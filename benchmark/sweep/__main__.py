"""`python -m benchmark.sweep FILE`: see driver.py."""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

from benchmark.sweep.driver import main
from mjsim.cli import variables

if __name__ == "__main__":
    variables.warn_of_unknown()
    main()

"""Watch a simulation that streams its state, in MuJoCo's window, a browser or as lines of text.

    python local_viewer.py                    # a server on this machine, or behind ssh -L
    python local_viewer.py --backend web      # a page at http://127.0.0.1:8080
    python local_viewer.py --backend none     # a line a second on stdout
    python local_viewer.py --replay run.mcap  # a recording, in any of these; or --video run.mp4

Comes back after a dropped connection and shows the next run when the server starts again. Exit
status: 0 window closed, Ctrl-C, SIGTERM, or what is shown has ended and --once was given; 1 --once
was given and for 5 s there was no server; 2 wrong use, or no window can be opened here; 130 or 143
interrupted by Ctrl-C or SIGTERM while it was starting or making a video.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

from mjsim import options
from mjsim.cli import local_viewer as viewer
from mjsim.cli import variables

if __name__ == "__main__":
    variables.warn_of_unknown()
    options.run(viewer.LocalViewerSettings, viewer.main, description=__doc__.split("\n\n")[0])

"""The command `mjsim`: its subcommands, what they share, and what its --help says.

The modules of the subcommands load their settings and nothing else, so that neither --help nor
wrong use waits for MuJoCo or Warp.
"""

from typing import NoReturn

import click

from mjsim import options
from mjsim.cli import doctor, replay, run, variables, video, view, watch

HELP = """Run MuJoCo simulations, and stream, record, watch and render them.

\b
Completion of commands and flags by the Tab key, for each new shell:
  bash   echo 'eval "$(_MJSIM_COMPLETE=bash_source mjsim)"' >> ~/.bashrc
  zsh    echo 'eval "$(_MJSIM_COMPLETE=zsh_source mjsim)"' >> ~/.zshrc
  fish   echo '_MJSIM_COMPLETE=fish_source mjsim | source' >> ~/.config/fish/config.fish
"""
RUN_HELP = """Run a model without a window; print how fast and whether it held.

Exit status: 0 done, 1 a world diverged or the summary could not be written, 2 wrong use, 3 contacts
or constraint rows were lost, or there was no memory for them, 130 or 143 interrupted (Ctrl-C,
SIGTERM).
"""
VIEW_HELP = """Run a model and watch it, in MuJoCo's window or a browser.

Exit status: 0 window closed, Ctrl-C, SIGTERM, or --nsteps taken; 1 the X server is gone; 2 wrong
use, or no window can be opened here; 130 or 143 interrupted while it was starting.
"""
WATCH_HELP = """Watch a simulation that streams its state.

Comes back after a dropped connection and shows the next run when the server starts again. Exit
status: 0 window closed, Ctrl-C, SIGTERM, or the stream has ended and --once was given; 1 --once was
given and for 5 s there was no server; 2 wrong use, or no window can be opened here; 130 or 143
interrupted while it was starting.
"""
REPLAY_HELP = """Play the recording FILE.

Exit status: 0 window closed, Ctrl-C, SIGTERM, or the recording has ended and --once was given; 2
wrong use, or no window can be opened here; 130 or 143 interrupted while it was starting.
"""
VIDEO_HELP = """Render the recording FILE into the video OUT, .mp4 or .gif.

Exit status: 0 done, 2 wrong use, 130 or 143 interrupted; the frames up to then are kept.
"""
DOCTOR_HELP = """Report what this machine can do, and what mends each lack.

Exit status: 0 if `mjsim run` can work here, 1 if not.
"""


def make_group() -> click.Group:
    """The command with all its subcommands."""
    return click.Group(
        "mjsim",
        help=HELP,
        context_settings=options.CONTEXT,
        params=[_version_option()],
        commands=[
            options.make_command(run.HeadlessSettings, run.main, RUN_HELP, "run"),
            options.make_command(view.InteractiveSettings, view.main, VIEW_HELP, "view"),
            options.make_command(watch.WatchCommandSettings, watch.main, WATCH_HELP, "watch"),
            options.make_command(replay.ReplaySettings, replay.main, REPLAY_HELP, "replay"),
            options.make_command(video.VideoSettings, video.main, VIDEO_HELP, "video"),
            click.Command(
                "doctor", callback=doctor.main, help=DOCTOR_HELP, context_settings=options.CONTEXT
            ),
        ],
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from importlib import metadata

            print(f"mjsim {metadata.version('comfree-warp')}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
    )


def main() -> NoReturn:
    """Run the command line of this process."""
    variables.warn_of_unknown()
    options.run_command(make_group(), "mjsim")

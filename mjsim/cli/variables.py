"""The environment variables of all programs, and the warning about one that is misspelt."""

import difflib
import os
import sys

from mjsim import options
from mjsim.cli.local_viewer import LocalViewerSettings
from mjsim.run.headless_settings import HeadlessSettings
from mjsim.view.interactive_settings import InteractiveSettings

_SETTINGS = (HeadlessSettings, InteractiveSettings, LocalViewerSettings)
PLAIN = "COMFREE_PLAIN"  # read by comfree_warp, when it is imported
KNOWN = {options.TOKEN, PLAIN}.union(*map(options.variables, _SETTINGS))
# WARP_DEVICE is ours too, but what else begins so is Warp's.
_OURS = tuple({f"{name.partition('_')[0]}_" for name in KNOWN} - {"WARP_"})


def warn_of_unknown() -> None:
    """Name on stderr each variable that looks like one of a program's and is none's."""
    for name in sorted(os.environ):
        if name.startswith(_OURS) and name not in KNOWN:
            told = f"no program knows the variable {name}; did you mean {_nearest(name)}?"
            print(f"warning: {told}", file=sys.stderr)


def _nearest(name: str) -> str:
    """The known variable that a name is most like; one that differs in its prefix before all."""
    rest = name.partition("_")[2]
    others = [known for known in sorted(KNOWN) if known.partition("_")[2] == rest]
    return others[0] if others else difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)[0]

"""The environment variables of all programs, so that one that is misspelt is told of."""

import difflib
import os
import sys

import settings
from headless_settings import HeadlessSettings
from interactive_settings import InteractiveSettings
from replay_settings import ReplaySettings
from view_settings import ViewSettings
from watch_settings import WatchSettings

_SETTINGS = (HeadlessSettings, InteractiveSettings, ReplaySettings, ViewSettings, WatchSettings)
KNOWN = {settings.TOKEN}.union(*map(settings.variables, _SETTINGS))
# WARP_DEVICE is ours too, but what else begins so is Warp's.
_OURS = tuple({f"{name.partition('_')[0]}_" for name in KNOWN} - {"WARP_"})


def warn_of_unknown() -> None:
    """Name on stderr each variable that looks like one of a program's and is none's."""
    for name in sorted(os.environ):
        if name.startswith(_OURS) and name not in KNOWN:
            nearest = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)[0]
            print(
                f"warning: no program knows the variable {name}; did you mean {nearest}?",
                file=sys.stderr,
            )

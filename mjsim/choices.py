"""What settings may be chosen from, to be had without loading what they are about."""

from collections.abc import Collection, Mapping

from mjsim.errors import SettingError

ENGINES = ("mjc", "mjwarp", "comfree")
LAWS = ("paper", "warm")  # of comfree, as `comfree_warp.io` has them; the default first
PASSES = (1, 2, 3, 4)  # of the law warm, likewise
MODEL_MODES = ("xml", "path")  # how a server tells viewers its model
BACKENDS = ("native", "web", "none")  # where a viewer shows a scene

# The engines by their whole names, and what each makes use of, of the settings that not all do.
_BUFFERS = frozenset({"nconmax", "njmax", "nccdmax"})
_USED = {
    "mjc": frozenset(),
    "mjwarp": _BUFFERS,
    "comfree:paper": _BUFFERS | {"law", "stiffness", "damping"},
    "comfree:warm": _BUFFERS | {"law", "passes"},
}
NAMES = tuple(_USED)


def engine_name(engine: str, law: str | None = None) -> str:
    """An engine's whole name, with the law where it has one: "mjc", "comfree:warm"."""
    return f"{engine}:{law or LAWS[0]}" if engine == "comfree" else engine


def file_name(name: str) -> str:
    """An engine's whole name in the name of a file, in which scp would take a colon for a host."""
    return name.replace(":", "-")


def split_name(name: str, law: str | None = None) -> tuple[str, str | None]:
    """Engine and law of a name such as "mjc", "comfree" or "comfree:warm".

    Args:
      name: of the engine.
      law: that was chosen beside it; what is returned where the name has none.

    Raises:
      SettingError: `engine`: there is none of that name; `law`: there is none of that name, or the
        engine's name has another one.
    """
    if name not in ENGINES and name not in NAMES:
        allowed = ", ".join(dict.fromkeys((*ENGINES, *NAMES)))
        raise SettingError("engine", f"{name!r} is no engine; allowed: {allowed}")
    if law is not None and law not in LAWS:
        raise SettingError("law", f"{law!r} is none of {', '.join(LAWS)}")
    engine, _, named = name.partition(":")
    if named and law not in (None, named):
        raise SettingError("law", f"{law!r}, and the engine is {name}: leave one of them out")
    return engine, named or law


def is_used(setting: str, name: str) -> bool:
    """Whether an engine, by its whole name, makes use of a setting of `make_simulation`."""
    return setting in _USED[name] or not any(setting in used for used in _USED.values())


def refuse_unused(given: Mapping[str, object], names: Collection[str]) -> None:
    """Refuse a setting of which none of these engines, by their whole names, makes use.

    Raises:
      SettingError: of that setting.
    """
    for setting, value in given.items():
        if not any(is_used(setting, name) for name in names):
            users = ", ".join(name for name in NAMES if is_used(setting, name))
            raise SettingError(
                setting,
                f"{value} is of no use to {', '.join(names)}, only to {users}: leave it out",
            )

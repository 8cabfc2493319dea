"""The command `mjsim`, also as `python -m mjsim`."""

from mjsim import interrupts


def main() -> None:
    """Run the command line and exit; say in one line what is missing where that is not possible."""
    interrupts.install()
    # Only now, so that Ctrl-C is handled before anything takes time.
    import sys
    from importlib.util import find_spec

    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if not missing:
        from mjsim.cli import command

        command.main()
    if sys.argv[1:2] == ["doctor"]:  # it is there to tell what is missing
        from mjsim.cli import doctor

        sys.exit(doctor.main())
    from mjsim.text import install_line

    print(f"mjsim: {' and '.join(missing)} missing: {install_line('run')}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()

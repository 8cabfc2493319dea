"""Texts for people."""


def printable(text: str) -> str:
    """A text that may come from elsewhere, without what could steer a terminal, and cut short."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])

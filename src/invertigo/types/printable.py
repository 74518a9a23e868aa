"""Text that came from somebody else, made fit for a terminal, a log and a page."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Every character that does not print as itself written out: `\x1b`, `\u202e`. Line breaks too.

    Tensor names are chosen by a server: one with escape sequences could wipe a verdict off the screen and draw another.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

"""How is text of unknown origin shown? As one line that can neither hide, nor turn round what stands beside it."""

from __future__ import annotations

import unicodedata

_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Code points that embed, override or isolate a direction of writing (Unicode TR9); a name needs none of them."""
_BREAKING = {"\t", "\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"}


def printable(text: str) -> str:
    """Put a visible mark where a control character or a change of direction was, and a space for a line break.

    Names written from right to left need neither and stay as they are. Escaping markup is left to what writes it.
    """
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character in _BREAKING:
        return " "
    if ord(character) in _TURNING or unicodedata.category(character) in ("Cc", "Cs"):
        return "\N{REPLACEMENT CHARACTER}"
    return character


def one_line(text: str) -> str:
    """Printable, with single spaces: an answer of another system, in a message or a table."""
    return " ".join(printable(text).split())

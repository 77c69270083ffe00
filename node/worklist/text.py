"""How is text of unknown origin shown? As text that can neither hide, nor turn round what stands beside it."""

from __future__ import annotations

import unicodedata

_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Code points that embed, override or isolate a direction of writing (Unicode TR9); a name needs none of them."""
_BREAKING = {"\t", "\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"}


def shown(text: str) -> str:
    """Put a visible mark where a control character or a change of direction was, and a space for a line break.

    Names written from right to left need neither and stay as they are; markup is escaped elsewhere, by the templates.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def finalize(value: object) -> object:
    """Do so with every text that a template puts out; what is markup already stays."""
    return shown(value) if type(value) is str else value


def _shown(character: str) -> str:
    if character in _BREAKING:
        return " "
    if ord(character) in _TURNING or unicodedata.category(character) in ("Cc", "Cs"):
        return "\N{REPLACEMENT CHARACTER}"
    return character

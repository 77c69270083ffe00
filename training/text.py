"""How is a number of things written? With a noun that agrees with it."""

from __future__ import annotations


def numbered(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> numbered(1, "study"), numbered(2, "study"), numbered(0, "error")
    ('1 study', '2 studies', '0 errors')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{number} {noun}s"

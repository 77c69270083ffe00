"""What can go wrong with a study, as a few types of errors.

Every error says *what* is wrong, *where*, and *what to do*; its text is one line for a terminal, a log or the
worklist. The command line ends with the error's `exit_status`: 2 for input and usage.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def type_and_place(error: BaseException) -> str:
    """Describe an exception of a library without its text, which may quote a header value, and so a patient's name.

    >>> type_and_place(KeyError("DOE^JOHN"))
    'KeyError'
    """
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    return " ".join(
        [type(error).__name__, *(f"at {Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)]
    )


def describe_mistake(first: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """Say in plain words what pydantic found wrong with an entry of a TOML table.

    Parameters
    ----------
    first : mapping
        One of :meth:`pydantic.ValidationError.errors`.
    known : iterable of str
        Names of the entries that there are, for one that is misspelt.

    >>> describe_mistake({"type": "extra_forbidden", "loc": ("rule", 0, "actoin"), "msg": "…"}, ["action", "role"])
    'there is no such entry; did you mean action?'
    """
    if first["type"] == "missing":
        return "this entry is required"
    if first["type"] != "extra_forbidden":
        return str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "it must be")
    likely = get_close_matches(str(first["loc"][-1]), list(known), n=1, cutoff=0.7)
    return "there is no such entry" + (f"; did you mean {likely[0]}?" if likely else "")


class CmbError(Exception):
    """Base of the errors that this project raises.

    Parameters
    ----------
    what : str
        What is wrong, without a final full stop.
    where : str, optional
        File, series or setting concerned.
    do : str, optional
        What the reader can do about it.
    """

    exit_status = 2

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}; {do}" if do else text)


class InputError(CmbError):
    """The images (or other input) cannot be used; trying again will not help."""


class NoSwiError(InputError):
    """There is no susceptibility-weighted series to analyse."""


class GeometryError(InputError):
    """The slices do not make one regular volume; the message names them."""


class ProfileError(CmbError):
    """A profile is unknown, incomplete or names weights that do not match."""

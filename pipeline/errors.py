"""What can go wrong with a study, in the project's own few types.

Every error says *what* is wrong, *where*, and *what to do*; its text is one line, fit for a terminal, a log and the
worklist. The command line ends with the error's `exit_status`: 2 for input and usage.
"""

from __future__ import annotations


class CmbError(Exception):
    """Base of the errors this project raises on purpose.

    Parameters
    ----------
    what : str
        What is wrong, without a final full stop.
    where : str, optional
        File, series or setting that it concerns.
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

"""What does a check say? One line: in order, worth knowing, or wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import CmbError


class Verdict(StrEnum):
    """How serious it is; `WRONG` makes the command fail."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Checkup:
    """The outcome of one check.

    Parameters
    ----------
    subject : str
        What was checked.
    what : str
        What was found.
    do : str
        What the administrator can do about it; empty if nothing needs to be done.
    """

    subject: str
    verdict: Verdict
    what: str
    do: str = ""


def ok(subject: str, what: str) -> Checkup:
    """Everything in order."""
    return Checkup(subject, Verdict.OK, what)


def note(subject: str, what: str, do: str = "") -> Checkup:
    """Worth knowing."""
    return Checkup(subject, Verdict.NOTE, what, do)


def wrong(subject: str, what: str, do: str = "") -> Checkup:
    """It must be corrected."""
    return Checkup(subject, Verdict.WRONG, what, do)


def wrong_because(subject: str, error: CmbError) -> Checkup:
    """Take what an error of the node says."""
    return wrong(subject, f"{error.where}: {error.what}" if error.where else error.what, error.do)

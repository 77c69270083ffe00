"""Does a destination answer? One check for each kind (C-ECHO, QIDO-RS, a connection, the FHIR capabilities)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from node.settings.destinations import DestinationSettings
from node.text import one_line

from . import Unreachable, open_destination

LONGEST_WAIT_S = 10.0
"""A check waits no longer than this for a connection or an answer, even if `timeout_s` of the destination is longer."""


@dataclass(frozen=True)
class DestinationCheck:
    """What a destination answered.

    Parameters
    ----------
    text : str
        Its address and its answer, or why there is none, in one line.
    do : str
        What an administrator can do about it; empty if it answers.
    took_s : float
        How long it took, in seconds.
    """

    answers: bool
    text: str
    do: str
    took_s: float


def check_destination(settings: DestinationSettings, calling_ae_title: str) -> DestinationCheck:
    """Check that a destination answers; nothing is sent.

    Raises
    ------
    CmbError
        If the settings cannot be used: a certificate that is not readable.
    """
    patient = settings.model_copy(update={"timeout_s": min(settings.timeout_s, LONGEST_WAIT_S)})
    started = time.perf_counter()
    try:
        answer = open_destination(patient, calling_ae_title).check()
    except Unreachable as error:
        known = ", and that the other side knows this node" if settings.TAKES_DICOM else " and credentials"
        do = f"check address, firewall{known}"
        return DestinationCheck(False, one_line(str(error)), do, time.perf_counter() - started)
    text = one_line(f"{settings.address} {answer}")
    return DestinationCheck(True, text, "", time.perf_counter() - started)

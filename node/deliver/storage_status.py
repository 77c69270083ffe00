"""What does a DICOM storage status mean? C-STORE and STOW-RS answer with the same codes."""

from __future__ import annotations

from typing import Final

from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

DUPLICATE: Final = 0x0111
"""Duplicate SOP Instance (PS3.7 C.5.8): the peer already has it, from an earlier attempt that was interrupted."""


def is_accepted(status: int) -> bool:
    """Whether the peer has stored the object.

    With a warning (0xBxxx, 0x0107, 0x0116) it has stored it, coerced or without some element (PS3.4 B.2.3, PS3.7 C.4).
    """
    unlisted = "Warning" if status & 0xF000 == 0xB000 else "Failure"
    category, _meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, (unlisted, ""))
    return status == DUPLICATE or category in ("Success", "Warning")


def in_words(status: int, comment: str = "") -> str:
    """Describe a status in words, with the peer's Error Comment (0000,0902) if there is one."""
    meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("", "unknown status"))[1]
    if status == 0x0000:
        words = "stored"
    elif status == DUPLICATE:
        words = "the peer has it already (0x0111)"
    else:
        words = f"{'stored with a warning' if is_accepted(status) else 'refused'}: {meaning} (0x{status:04X})"
    return f"{words}: {comment}" if comment else words

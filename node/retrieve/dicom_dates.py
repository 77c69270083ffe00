"""How is a DICOM date read and written?"""

from __future__ import annotations

import re
from datetime import date


def day_of(text: str) -> date | None:
    """Read a DICOM date (PS3.5 6.2, VR DA)."""
    if not re.fullmatch(r"\d{8}", text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def in_words(text: str) -> str:
    """Write a DICOM date as ``2026-11-21``."""
    day = day_of(text)
    return text if day is None else day.isoformat()

"""Which kind of data set is a folder? Found by its layout, or said with ``--kind``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from training.datasets.points import is_points, list_points
from training.datasets.public import is_dou, is_valdo, list_dou, list_valdo
from training.datasets.record import Record
from training.datasets.simulated import is_simulated, list_simulated
from training.datasets.site import is_site, list_site


class Kind(NamedTuple):
    """How to recognise and how to list a kind of data set."""

    fits: Callable[[Path], bool]
    records: Callable[[Path], list[Record]]


KINDS: dict[str, Kind] = {
    "simulated": Kind(is_simulated, list_simulated),
    "valdo": Kind(is_valdo, list_valdo),
    "dou": Kind(is_dou, list_dou),
    "points": Kind(is_points, list_points),
    "site": Kind(is_site, list_site),
}
"""By name, the most particular first."""


def open_dataset(folder: Path, kind: str | None = None) -> list[Record]:
    """List the studies of a data set.

    Raises
    ------
    InputError
        When there is no such folder or kind, or nothing of the kind is in it.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder))
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind of data set {kind!r}", do=f"use one of: {', '.join(KINDS)}")
    chosen = kind or next((name for name, one in KINDS.items() if one.fits(folder)), None)
    records = KINDS[chosen].records(folder) if chosen else []
    if not records:
        what = f"holds no study of a {chosen} data set" if chosen else "is no data set of a known layout"
        raise InputError(what, where=str(folder), do="docs/train.md says how each is laid out")
    names = [r.name for r in records]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"has two studies of the name {twice[0]}", where=str(folder))
    return records

"""Which kind of data set is a folder? Found by its layout, or said with ``--kind``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError

from .check import Problem
from .points import is_points, list_points
from .public import is_dou, is_momeni, is_valdo, list_dou, list_momeni, list_valdo, unused_momeni_rows
from .record import Record
from .simulated import is_simulated, list_simulated
from .site import is_site, list_site, unused_site_labels


class DatasetKind(NamedTuple):
    """How to recognise and how to list a kind of data set, and which of its labels belong to no study."""

    fits: Callable[[Path], bool]
    records: Callable[[Path], list[Record]]
    unused: Callable[[Path], list[Problem]] = lambda _: []


KINDS: dict[str, DatasetKind] = {
    "simulated": DatasetKind(is_simulated, list_simulated),
    "valdo": DatasetKind(is_valdo, list_valdo),
    "dou": DatasetKind(is_dou, list_dou),
    "momeni": DatasetKind(is_momeni, list_momeni, unused_momeni_rows),
    "points": DatasetKind(is_points, list_points),
    "site": DatasetKind(is_site, list_site, unused_site_labels),
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
    chosen = _kind_of(folder, kind)
    records = KINDS[chosen].records(folder) if chosen else []
    if not records:
        what = f"holds no study of a {chosen} data set" if chosen else "is no data set of a known layout"
        raise InputError(what, where=str(folder), do="docs/train.md describes the layouts")
    names = [r.name for r in records]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"has two studies called {twice[0]}", where=str(folder))
    return records


def unused_labels(folder: Path, kind: str | None = None) -> list[Problem]:
    """Labels of a data set that are not used, because they name no study or nothing that is known."""
    chosen = _kind_of(folder, kind)
    return KINDS[chosen].unused(folder) if chosen else []


def _kind_of(folder: Path, kind: str | None) -> str | None:
    return kind or next((name for name, one in KINDS.items() if one.fits(folder)), None)

"""Which of these files are SWI, phase, magnitude, and which must never be used (mIP)?

Reads headers only: no pixel data is touched. What a file says is in :mod:`pipeline.headers`, what it is taken for in
:mod:`pipeline.recognition` (rules as data), what a series holds in :mod:`pipeline.series`, and which series belong
together in :mod:`pipeline.pairing`.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import InputError
from pipeline.headers import Frame, Instance, Unreadable, read_instance
from pipeline.pairing import Pick, pick
from pipeline.recognition import Role, Rules, load_rules
from pipeline.series import Series, Study, make_study

__all__ = [
    "Frame",
    "Instance",
    "Pick",
    "Role",
    "Series",
    "Study",
    "Unreadable",
    "find_files",
    "pick",
    "read_studies",
]


def find_files(folder: Path) -> list[Path]:
    """List every file under `folder`, sorted.

    Raises
    ------
    InputError
        There is no such folder, or no file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), do="name the folder that holds the DICOM files")
    files = sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
    if not files:
        raise InputError("the folder is empty", where=str(folder), do="name the folder that holds the DICOM files")
    return files


def read_studies(paths: Iterable[Path], rules: Rules | None = None) -> tuple[list[Study], list[Unreadable]]:
    """Read the headers of files and group them into studies and series, each series with its role.

    A file that is no DICOM instance is returned as unreadable, with the reason; a DICOMDIR is passed over; an instance
    that is there twice (same SOP Instance UID) counts once.
    """
    rules = rules or load_rules()
    unreadable: list[Unreadable] = []
    instances: dict[str, Instance] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of each odd value; what cannot be used counts as absent
        for path in paths:
            found = read_instance(Path(path), rules.fields)
            if isinstance(found, Unreadable):
                unreadable.append(found)
            elif found is not None:
                instances.setdefault(found.sop_instance_uid, found)
    by_study: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances.values():
        by_study[instance.study_instance_uid].append(instance)
    return [make_study(uid, group, rules) for uid, group in sorted(by_study.items())], unreadable

"""Which of these files are SWI, phase, magnitude, and which must never be used (mIP)?

Reads headers only, no pixel data. :mod:`.headers` reads a file, :mod:`.recognition` gives it a role by rules,
:mod:`.series` groups files into series, and :mod:`.pairing` decides which series belong together.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import InputError

from .headers import Frame, Instance, Unreadable, read_instance
from .pairing import SeriesSelection, select_series
from .recognition import RecognitionRules, SeriesRole, load_rules
from .series import Series, Study, make_study

__all__ = [
    "Frame",
    "Instance",
    "Series",
    "SeriesRole",
    "SeriesSelection",
    "Study",
    "Unreadable",
    "find_files",
    "read_studies",
    "select_series",
]


def find_files(folder: Path) -> list[Path]:
    """List every file under `folder`, sorted.

    Raises
    ------
    InputError
        There is no such folder, or it has no file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), do="name the folder that holds the DICOM files")
    files = sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
    if not files:
        raise InputError("the folder is empty", where=str(folder), do="name the folder that holds the DICOM files")
    return files


def read_studies(paths: Iterable[Path], rules: RecognitionRules | None = None) -> tuple[list[Study], list[Unreadable]]:
    """Read the headers of files and group them into studies and series, each series with its role.

    A file that is not a DICOM instance is returned as unreadable, with the reason; a DICOMDIR is skipped; a duplicate
    instance (same SOP Instance UID) counts once.

    Examples
    --------
    >>> from pathlib import Path
    >>> (study,), unreadable = read_studies(find_files(Path("node/demo/study")))
    >>> for series in study.series:
    ...     print(series.label, series.role.value)
    series 8 (Mag_Images) magnitude
    series 9 (Pha_Images) phase
    series 10 (mIP_Images(SW)) mip
    series 11 (SWI_Images) swi
    >>> [(file.path.name, file.why) for file in unreadable]
    [('truth.json', 'not a DICOM file')]
    >>> [series.label for series in select_series(study).used]
    ['series 11 (SWI_Images)', 'series 9 (Pha_Images)', 'series 8 (Mag_Images)']
    """
    rules = rules or load_rules()
    unreadable: list[Unreadable] = []
    instances: dict[str, Instance] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of each malformed value; these count as absent
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

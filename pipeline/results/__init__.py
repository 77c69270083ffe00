"""How does a detection become DICOM? Segmentation, Structured Report, Secondary Capture and, on request, key objects.

The only package that uses highdicom. :func:`make_results` is a pure function of the detection, the job's key and one
point in time: the same three give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydicom import Dataset

from pipeline.results.ko.key_objects import make_key_objects
from pipeline.results.ko.rejection_note import RejectionReason, make_rejection_note
from pipeline.results.sc.capture import make_capture
from pipeline.results.sc.montage import montage
from pipeline.results.seg.segmentation import make_segmentation
from pipeline.results.sr.report import Companions, make_report

from .context import ResultContext
from .replaced import ReplacedObject, ReplacedResult

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.findings import Verification

__all__ = [
    "RejectionReason",
    "ReplacedObject",
    "ReplacedResult",
    "ResultObject",
    "make_results",
    "montage",
    "write_results",
]


ResultKind = Literal["seg", "sr", "capture", "ko", "rejection"]


@dataclass(frozen=True, eq=False)
class ResultObject:
    """One DICOM object of a result; its file is called ``{kind}.dcm``."""

    kind: ResultKind
    dataset: Dataset


def make_results(
    detection: Detection,
    *,
    key: str,
    created: datetime,
    replaces: ReplacedResult | None = None,
    verified: Verification | None = None,
    key_objects: bool = False,
    rejection: RejectionReason | None = None,
) -> tuple[ResultObject, ...]:
    """Make the DICOM objects of a result.

    Parameters
    ----------
    detection : Detection
        The findings and their images, whose headers are read again.
    key : str
        The job's key; every UID derives from it.
    created : datetime
        Time of creation with its time zone. Written in the time zone of the images if they state one.
    replaces : ReplacedResult, optional
        The result that this one replaces. Series description and number then say which revision this is.
    verified : Verification, optional
        Who verified the result; by default `verification` of the findings, which is usually ``None``.
    key_objects : bool
        Also make a key object selection of the slices with microbleeds.
    rejection : RejectionReason, optional
        Also make a rejection note on the result that this one replaces, for this reason.

    Returns
    -------
    tuple of ResultObject
        SEG (left out if there is no lesion), SR and capture, the key object selection if there is a lesion, and last
        the rejection note if there is something to reject.

    Raises
    ------
    ValueError
        If `created` names no time zone.
    InputError
        If a source image cannot be read.
    """
    if verified is not None:
        detection = replace(detection, findings=replace(detection.findings, verification=verified))
    job = ResultContext.of(detection, key, created, replaces)
    segmentation = make_segmentation(job)
    capture = make_capture(job)
    selection = make_key_objects(job) if key_objects else None
    report = make_report(job, Companions(segmentation, capture, selection))
    note = make_rejection_note(job, rejection) if rejection is not None else None
    made: dict[ResultKind, Dataset | None]
    made = {"seg": segmentation, "sr": report, "capture": capture, "ko": selection, "rejection": note}
    return tuple(ResultObject(kind, dataset) for kind, dataset in made.items() if dataset is not None)


def write_results(objects: Iterable[ResultObject], folder: Path) -> dict[str, Path]:
    """Write each object to `folder` atomically and durably; return the files by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for result in objects:
        path = folder / f"{result.kind}.dcm"
        temporary = folder / f".{path.name}-{os.getpid()}.part"
        try:
            with temporary.open("wb") as file:
                result.dataset.save_as(file, enforce_file_format=True)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        paths[result.kind] = path
    _sync(folder)
    return paths


def _sync(folder: Path) -> None:
    """Make the new names durable, not only the bytes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

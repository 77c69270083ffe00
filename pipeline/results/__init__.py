"""How does a detection become DICOM? Segmentation, Structured Report, Secondary Capture and, if asked, key objects.

The only package that knows highdicom. :func:`make_results` is a pure function of the detection, the job's key and one
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

from .capture import make_capture
from .common import Job
from .key_objects import make_key_objects
from .montage import montage
from .report import make_report
from .segmentation import make_segmentation

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.findings import Verification

__all__ = ["ResultObject", "make_results", "montage", "write_results"]


@dataclass(frozen=True, eq=False)
class ResultObject:
    """One DICOM object of a result; its file is called ``{kind}.dcm``."""

    kind: Literal["seg", "sr", "capture", "ko"]
    dataset: Dataset


def make_results(
    detection: Detection,
    *,
    key: str,
    created: datetime,
    predecessor: str | None = None,
    verified: Verification | None = None,
    key_objects: bool = False,
) -> tuple[ResultObject, ...]:
    """Make the DICOM objects of a result.

    Parameters
    ----------
    detection : Detection
        What was found, where, and on which images. Their files are read again, headers only.
    key : str
        The job's key; every UID derives from it.
    created : datetime
        When, with time zone. Written in the time zone of the images if they state one, else in its own.
    predecessor : str, optional
        Key of the job whose report this one replaces.
    verified : Verification, optional
        Who stands behind the result; by default `verification` of the findings, which is usually ``None``.
    key_objects : bool
        Also make a key object selection of the slices with bleeds.

    Returns
    -------
    tuple of ResultObject
        SEG (left out if there is no lesion), SR and capture, and the key object selection if there is a lesion.

    Raises
    ------
    ValueError
        If `created` names no time zone.
    InputError
        If a source image cannot be read.
    """
    if verified is not None:
        detection = replace(detection, findings=replace(detection.findings, verification=verified))
    job = Job.of(detection, key, created)
    segmentation = make_segmentation(job)
    objects = [] if segmentation is None else [ResultObject("seg", segmentation)]
    objects.append(ResultObject("sr", make_report(job, segmentation, predecessor)))
    objects.append(ResultObject("capture", make_capture(job, replaces=predecessor is not None)))
    if key_objects and (selection := make_key_objects(job)) is not None:
        objects.append(ResultObject("ko", selection))
    return tuple(objects)


def write_results(objects: Iterable[ResultObject], folder: Path) -> dict[str, Path]:
    """Write each object to `folder`, whole or not at all; return the files by kind."""
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

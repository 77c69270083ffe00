"""Which result does a result replace, and what may a PACS have of it?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplacedObject:
    """One DICOM object of the earlier result. `kind` is that of :class:`~pipeline.results.ResultObject`."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class ReplacedResult:
    """The result of the same study that a result replaces.

    Parameters
    ----------
    key : str
        Key of its job, from which its UIDs derive.
    revision : int
        1 for the first result of the study that was sent, 2 for the one that replaced it, and so on.
    objects : tuple of ReplacedObject
        What it consists of.
    """

    key: str
    revision: int = 1
    objects: tuple[ReplacedObject, ...] = ()

"""How does a PACS learn that a result was replaced? A rejection note on the earlier one (IHE IOCM), by TID 2010."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.coding import Code

from pipeline.results import codes
from pipeline.results.context import ResultContext, plain
from pipeline.results.replaced import ReplacedObject
from pipeline.uids import derive_uid

from .key_objects import device_observer, remove_concept_names

SERIES_NUMBER: Final = 9005

_IMAGES: Final = ("seg", "capture")  # the other objects are documents


class RejectionReason(StrEnum):
    """Why a PACS is to reject the objects of an earlier result, as the title of the note says."""

    EXPIRED = "data retention policy expired"
    INCORRECT = "incorrect modality worklist entry"


TITLES: Final[dict[RejectionReason, Code]] = {
    RejectionReason.EXPIRED: codes.RETENTION_EXPIRED,
    RejectionReason.INCORRECT: codes.INCORRECT_WORKLIST_ENTRY,
}


def make_rejection_note(job: ResultContext, reason: RejectionReason) -> Dataset | None:
    """Reject every object of the result that this one replaces; ``None`` if it replaces none."""
    if job.replaces is None or not job.replaces.objects:
        return None
    objects = [_reference(job, job.replaces.key, replaced) for replaced in job.replaces.objects]
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=hd.ko.KeyObjectSelection(
            document_title=TITLES[reason],
            referenced_objects=objects,
            observer_device_context=device_observer(job),
            description=plain(f"The earlier result of this study is replaced by revision {job.revision}."),
        ),
        **job.general("rejection", SERIES_NUMBER, "CMB rejection note"),
    )
    remove_concept_names(note)
    return job.finish(note)


def _reference(job: ResultContext, key: str, replaced: ReplacedObject) -> Dataset:
    """One object, as far as highdicom asks for it: it takes for an image what has a size."""
    ds = job.source.blank()
    ds.SOPClassUID, ds.SOPInstanceUID = replaced.sop_class_uid, replaced.sop_instance_uid
    ds.SeriesInstanceUID = derive_uid(key, replaced.kind, "series")
    if replaced.kind in _IMAGES:
        ds.Rows = ds.Columns = 1
    return ds

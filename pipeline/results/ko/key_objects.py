"""Which images does a reader want to open first? A Key Object Selection (PS3.3 A.35.4) of slices with microbleeds."""

from __future__ import annotations

from typing import Final

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms

from pipeline.findings.wording import RESEARCH_ONLY
from pipeline.geometry import FrameReference
from pipeline.results import codes
from pipeline.results.context import MANUFACTURER, MODEL, ResultContext, plain

SERIES_NUMBER: Final = 9004


def make_key_objects(job: ResultContext) -> Dataset | None:
    """Reference the slices with the centre of a microbleed, in slice order; ``None`` if there are none (TID 2010)."""
    swi = job.detection.acquisition.swi
    frames: dict[str, list[FrameReference]] = {}
    for k in sorted({lesion.voxel_ijk[2] for lesion in job.detection.findings.lesions}):
        frames.setdefault(swi.frames[k].sop_instance_uid, []).append(swi.frames[k])
    if not frames:
        return None
    named = {ds.SOPInstanceUID: ds for ds in job.source.instances()}
    objects = [_as_image(named[uid]) for uid in frames]
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=hd.ko.KeyObjectSelection(
            document_title=codes.OF_INTEREST,
            referenced_objects=objects,
            observer_device_context=device_observer(job),
            description=plain(f"Slices with detected cerebral microbleeds. {RESEARCH_ONLY}."),
        ),
        **job.general("ko", SERIES_NUMBER, "CMB key images"),
    )
    _name_frames(document, frames)
    remove_concept_names(document)
    return job.finish(document)


def _as_image(instance: Dataset) -> Dataset:
    """Add a size, by which highdicom recognises an image; it is not written."""
    instance.Rows = instance.Columns = 1
    return instance


def device_observer(job: ResultContext) -> hd.sr.ObserverContext:
    """The detector, which selects the objects (TID 1002)."""
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=job.device.uid, name=job.device.algorithm, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    return hd.sr.ObserverContext(observer_type=terms.DCM.Device, observer_identifying_attributes=attributes)


def _name_frames(document: Dataset, frames: dict[str, list[FrameReference]]) -> None:
    """Reference the frames of enhanced images."""
    for item in document.ContentSequence:
        if item.ValueType == "IMAGE":
            (reference,) = item.ReferencedSOPSequence
            numbers = [f.frame_number for f in frames[reference.ReferencedSOPInstanceUID] if f.frame_number is not None]
            if numbers:
                reference.ReferencedFrameNumber = sorted(numbers) if len(numbers) > 1 else numbers[0]


def remove_concept_names(document: Dataset) -> None:
    """Remove the concept names of references, which highdicom writes and TID 2010 (rows 8 and 10) does not have."""
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            del item.ConceptNameCodeSequence

"""Which images does a reader want to open first? A Key Object Selection (PS3.3 A.35.4) of the slices with bleeds."""

from __future__ import annotations

from typing import Final

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms

from pipeline.geometry import FrameReference

from . import codes
from .common import MANUFACTURER, MODEL, RESEARCH_ONLY, Job, plain

SERIES_NUMBER: Final = 9004


def make_key_objects(job: Job) -> Dataset | None:
    """Name the slices that hold the centre of a bleed, in slice order; ``None`` where there is none (TID 2010)."""
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
            observer_device_context=_device(job),
            description=plain(f"Slices with detected cerebral microbleeds. {RESEARCH_ONLY}."),
        ),
        **job.general("ko", SERIES_NUMBER, f"CMB key images ({RESEARCH_ONLY.split(' -')[0].lower()})"),
    )
    _name_frames(document, frames)
    return job.finish(document)


def _as_image(instance: Dataset) -> Dataset:
    """Give it a size, which highdicom tells an image by and does not write."""
    instance.Rows = instance.Columns = 1
    return instance


def _device(job: Job) -> hd.sr.ObserverContext:
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=job.device.uid, name=job.device.algorithm, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    return hd.sr.ObserverContext(observer_type=terms.DCM.Device, observer_identifying_attributes=attributes)


def _name_frames(document: Dataset, frames: dict[str, list[FrameReference]]) -> None:
    """Say which frames of an enhanced image are meant."""
    for item in document.ContentSequence:
        if item.ValueType == "IMAGE":
            (reference,) = item.ReferencedSOPSequence
            numbers = [f.frame_number for f in frames[reference.ReferencedSOPInstanceUID] if f.frame_number is not None]
            if numbers:
                reference.ReferencedFrameNumber = sorted(numbers) if len(numbers) > 1 else numbers[0]

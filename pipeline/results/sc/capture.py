"""What does a PACS show that displays neither SR nor SEG? The montage as a Secondary Capture.

One page is a Secondary Capture Image (PS3.3 A.8.1), which every viewer opens; more pages are one Multi-frame True Color
Secondary Capture Image (A.8.5) with a page in each frame.
"""

from __future__ import annotations

from typing import Final

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM

from pipeline.findings.wording import RESEARCH_ONLY
from pipeline.results import codes
from pipeline.results.context import ResultContext, code_item

from .montage import draw_pages

SERIES_NUMBER: Final = 9003


def make_capture(job: ResultContext) -> Dataset:
    """Draw the montage and make it an instance of the study."""
    drawn = draw_pages(job.detection, job.source.numbers, replaces=job.replaces is not None)
    pages = np.stack([np.asarray(page) for page in drawn])
    several = len(pages) > 1
    sop_class = MultiFrameTrueColorSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage
    blank = job.source.blank()
    capture = hd.SOPClass(
        study_instance_uid=blank.StudyInstanceUID,
        sop_class_uid=sop_class,
        modality="OT",
        patient_id="",
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        referring_physician_name="",
        **job.general("capture", SERIES_NUMBER, "CMB montage"),
    )
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = DA(job.created.date()), TM(job.created.time())
    capture.PatientOrientation = ""
    capture.BodyPartExamined = "BRAIN"  # unpaired, so that Laterality is not required
    capture.BurnedInAnnotation = "NO"  # it names nobody
    capture.ImageComments = f"{RESEARCH_ONLY}."
    capture.DerivationDescription = "Montage of slices with detected cerebral microbleeds"
    capture.SourceImageSequence = [_reference(ds) for ds in job.source.instances()]
    _add_pixels(capture, pages)
    if several:
        _add_page_vector(capture, len(pages))
    return job.finish(capture)


def _reference(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_IMAGE)]
    return item


def _add_pixels(ds: Dataset, pages: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Image Pixel module (C.7.6.3), uncompressed: a destination may support no other transfer syntax."""
    ds.Rows, ds.Columns = pages.shape[1:3]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "00"
    ds.add_new("PixelData", "OB", pages.tobytes())


def _add_page_vector(ds: Dataset, pages: int) -> None:
    """Multi-frame (C.7.6.6) and SC Multi-frame Vector (C.8.6.4) modules."""
    ds.NumberOfFrames = pages
    ds.FrameIncrementPointer = 0x00182001
    ds.PageNumberVector = list(range(1, pages + 1))

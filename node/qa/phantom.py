"""What is sent? Copies of a simulated study that name no patient, with new UIDs for every run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import DataElement, Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from node.demo.score import PlantedTruth, read_truth
from node.ledger.records import QA_PATIENT_ID
from pipeline.errors import InputError

PATIENT_NAME = "QA^PHANTOM"
TRUTH = "truth.json"
_STANDARD = "1.2.840.10008."  # SOP classes and the like


@dataclass(frozen=True)
class Phantom:
    """A phantom study that is ready to be sent.

    Parameters
    ----------
    digest : str
        Of the truth: the same for every copy of a study.
    """

    study_instance_uid: str
    files: tuple[Path, ...]
    truth: PlantedTruth
    digest: str


def make_phantom(study: Path, folder: Path, now: datetime) -> Phantom:
    """Copy a study with its truth into a folder, as a study of today that belongs to no patient.

    Parameters
    ----------
    study : Path
        Folder with the DICOM files of one study, and its ``truth.json``.
    folder : Path
        An empty folder.

    Raises
    ------
    InputError
        If there is no such study, or it has no truth.
    """
    truth = study / TRUTH
    if not truth.is_file():
        raise InputError(f"there is no {TRUTH}", where=str(study), do="name a folder with a simulated study")
    paths = []
    uids: dict[str, str] = {}
    for number, path in enumerate(sorted(study.rglob("*.dcm"))):
        try:
            image = dcmread(path)
        except InvalidDicomError as error:
            raise InputError("not a DICOM file", where=str(path)) from error
        _rename(image, uids, now)
        paths.append(folder / f"{number:05d}.dcm")
        image.save_as(paths[-1])
    if not paths:
        raise InputError("there is no DICOM file", where=str(study))
    digest = hashlib.sha256(truth.read_bytes()).hexdigest()
    return Phantom(str(image.StudyInstanceUID), tuple(paths), read_truth(truth), digest)


def _rename(image: Dataset, uids: dict[str, str], now: datetime) -> None:
    """Give an image new UIDs, the same for the same old one, and no patient."""

    def renew(_: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and isinstance(element.value, str) and not element.value.startswith(_STANDARD):
            element.value = uids.setdefault(element.value, generate_uid(prefix=None))

    image.walk(renew)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    for date in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(image, date, now.strftime("%Y%m%d"))
    for time in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(image, time, now.strftime("%H%M%S"))
    image.PatientName, image.PatientID, image.AccessionNumber = PATIENT_NAME, QA_PATIENT_ID, ""
    image.PatientBirthDate, image.PatientSex = "", ""
    image.StudyDescription = "QA phantom, not a patient"
    image.InstitutionName = "Simulated"

"""Which result objects does the node hold, and what do their headers say? The newest analysis of a study counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword

from node.ledger import ResultFile

from .services import DicomWebServices

STUDY_KEYWORDS = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
SERIES_KEYWORDS = ("Modality", "SeriesDate", "SeriesTime", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
INSTANCE_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
)
_ALL = [*STUDY_KEYWORDS, *SERIES_KEYWORDS, *INSTANCE_KEYWORDS]
_log = structlog.get_logger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True)
class ResultInstance:
    """A result object and the values of its header, as DICOM JSON."""

    file: ResultFile
    path: Path
    header: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        """A value as text; empty if it is absent."""
        values = self.header.get(tag_of(keyword), {}).get("Value") or [""]
        value = values[0]
        return str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value)

    def elements(self, keywords: tuple[str, ...]) -> Json:
        """The elements with these keywords; one that is absent is empty."""
        return {tag: self.header.get(tag, {"vr": dictionary_VR(tag)}) for tag in map(tag_of, keywords)}

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self.text("StudyInstanceUID")

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.text("SeriesInstanceUID")


def tag_of(keyword: str) -> str:
    """The tag of an attribute as DICOM JSON writes it.

    >>> tag_of("PatientID")
    '00100020'
    """
    return f"{tag_for_keyword(keyword):08X}"


def result_studies(services: DicomWebServices, study_uid: str = "") -> Iterator[list[ResultInstance]]:
    """The result objects, study by study, the newest first. Headers are read only as far as the caller goes."""
    files = services.ledger.current_results(study_uid)
    for _, of_job in groupby(files, key=lambda file: Path(file.path).parent):
        found = [one for file in of_job if (one := _instance(services, file)) is not None]
        if found:
            yield found


def _instance(services: DicomWebServices, file: ResultFile) -> ResultInstance | None:
    path = services.archive.path(file.path)
    if not path.is_file():  # removed by retention
        return None
    try:
        return ResultInstance(file, path, _header(path, file.sha256))
    except Exception as error:  # pydicom raises many types on a damaged file
        _log.warning("a result file cannot be read", file=file.path, error=type(error).__name__)
        return None


@lru_cache(maxsize=4096)
def _header(path: Path, _sha256: str) -> Mapping[str, Any]:
    """The header of a file, kept: the file of a job changes only together with its digest."""
    header: Json = dcmread(path, specific_tags=list(_ALL), stop_before_pixels=True).to_json_dict()
    return header

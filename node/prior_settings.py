"""What can be set about earlier studies: whom they are asked of, and how long a study waits for them?"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from node.destination_settings import AETitle, WebService


class DicomPacs(BaseModel):
    """A PACS that is asked by C-FIND and sends by C-MOVE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: AETitle = Field(description="AE title of its query/retrieve service (Study Root)")
    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(ge=1, le=65535, description="DICOM port")
    timeout_s: float = Field(30.0, gt=0, description="Longest wait for a connection or an answer to C-FIND, seconds")


class DicomWebPacs(WebService):
    """A PACS that is asked by QIDO-RS and gives by WADO-RS."""


class PriorsSettings(BaseModel):
    """Earlier studies of the patient, to compare with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dicom: DicomPacs | None = None
    dicomweb: DicomWebPacs | None = None
    wait_s: float = Field(
        300.0, ge=0, description="A study waits at most so long for earlier ones and their analysis, seconds"
    )
    stat_wait_s: float = Field(30.0, ge=0, description="The same for a study of priority STAT, seconds")
    late: Literal["replace", "keep"] = Field(
        "replace",
        description="When the earlier study comes too late: `replace` the result by one that compares, or `keep` it",
    )
    max_studies: int = Field(1, ge=1, le=10, description="Earlier studies that are fetched at most, the latest first")
    max_age_days: float = Field(3653.0, gt=0, description="Studies that are older than this are not asked for, days")
    max_instances: int = Field(4000, ge=1, description="A study with more MR images than this is not fetched")
    fetch_s: float = Field(600.0, gt=0, description="Longest one retrieval may take, seconds")
    attempts: int = Field(3, ge=1, description="The PACS is asked so often, if it does not answer")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dicom is not None and self.dicomweb is not None:
            raise ValueError("name one way to ask for earlier studies: dicom or dicomweb, not both")
        return self

    @property
    def asks(self) -> bool:
        """Whether there is a PACS to ask; otherwise a study is compared with what the node was sent."""
        return self.dicom is not None or self.dicomweb is not None

"""What can be set of a PACS that studies are fetched from? How it is queried, and how its images come."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .connections import DicomPeerSettings
from .destinations import WebService


class DicomPacs(DicomPeerSettings):
    """A PACS queried by C-FIND, retrieval by C-MOVE or C-GET (Study Root)."""

    retrieve: Literal["c-move", "c-get"] = Field(
        "c-move",
        description="`c-move`: the PACS sends images to the node's receiver, so it must know the node's address; "
        "`c-get`: it sends them on the connection that the node opens",
    )


class DicomWebPacs(WebService):
    """A PACS queried by QIDO-RS, retrieval by WADO-RS."""


class PacsSettings(BaseModel):
    """A PACS, and the limits of one retrieval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dicom: DicomPacs | None = None
    dicomweb: DicomWebPacs | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dicom is not None and self.dicomweb is not None:
            raise ValueError("name one way to reach the PACS: dicom or dicomweb, not both")
        return self

    @property
    def sends_to_receiver(self) -> DicomPacs | None:
        """The PACS, if it sends its images to the receiver (C-MOVE)."""
        return self.dicom if self.dicom is not None and self.dicom.retrieve == "c-move" else None

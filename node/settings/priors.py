"""What can be set about earlier studies: whom they are asked of, and how long a study waits for them?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .pacs import DicomPacs as DicomPacs
from .pacs import DicomWebPacs as DicomWebPacs
from .pacs import PacsSettings


class PriorsSettings(PacsSettings):
    """Prior studies of the patient."""

    wait_s: float = Field(
        300.0, ge=0, description="Longest time a study waits for its priors and their analysis, in seconds"
    )
    stat_wait_s: float = Field(30.0, ge=0, description="The same for a study of priority STAT, in seconds")
    late: Literal["replace", "keep"] = Field(
        "replace",
        description="If a prior arrives too late: `replace` the result with one that compares, or `keep` it",
    )
    max_studies: int = Field(1, ge=1, le=10, description="Maximum number of priors to fetch, the latest first")
    max_age_days: float = Field(3653.0, gt=0, description="Studies older than this many days are not requested")
    max_instances: int = Field(4000, ge=1, description="A study with more MR images than this is not fetched")
    fetch_s: float = Field(600.0, gt=0, description="Time limit of one retrieval, in seconds")
    attempts: int = Field(3, ge=1, description="Number of attempts if the PACS does not answer")

    @property
    def asks(self) -> bool:
        """Whether there is a PACS to ask; otherwise a study is compared with what the node was sent."""
        return self.dicom is not None or self.dicomweb is not None

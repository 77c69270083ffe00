"""What can be set about a worklist manager? Where it is, which of its work items are this node's, and their images."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from .destinations import WebService

CodeValue = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16)]
CodeMeaning = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
CodedTerm = tuple[CodeValue, CodeMeaning, CodeValue]
"""A code as DICOM writes it: value, meaning, coding scheme designator."""


class WorkItemImages(WebService):
    """Where the images of work items are retrieved (WADO-RS)."""


class WorkItemSettings(WebService):
    """A worklist manager (Unified Procedure Steps by UPS-RS)."""

    create: bool = Field(True, description="Create a work item there for each study that is routed to the node")
    perform: bool = Field(True, description="Claim and perform scheduled work items that are for this node")
    workitem_codes: tuple[CodedTerm, ...] = Field(
        (("110004", "Computer Aided Detection", "DCM"),),
        min_length=1,
        description="Scheduled Workitem Codes (value, meaning, coding scheme) of items for this node; the first is "
        "that of the items that it creates",
    )
    station_name: CodedTerm | None = Field(
        None, description="Station Name Code of this node; none: its AE title, in coding scheme `99CMBNODE`"
    )
    station_class: CodedTerm | None = Field(
        None, description="Station Class Code of this node; items that name this class and no station are for it, too"
    )
    unassigned: bool = Field(False, description="Items that name neither station nor class are for this node, too")
    worklist_label: CodeMeaning = Field("cmb-node", description="Worklist Label of the items that the node creates")
    poll_s: float = Field(30.0, gt=0, description="Pause between two searches for scheduled items, in seconds")
    images: WorkItemImages | None = None
    fetch_s: float = Field(600.0, gt=0, description="Time limit of the retrieval of one item's images, in seconds")
    max_instances: int = Field(4000, ge=1, description="An item with more images than this is not performed")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.create or self.perform):
            raise ValueError("create and perform are both false, so the manager would never be used: set one of them")
        return self

    @property
    def image_service(self) -> WebService:
        """Where images are retrieved: `images`, or the manager itself."""
        return self.images or self

    def station(self, ae_title: str) -> CodedTerm:
        """Station Name Code of this node."""
        return self.station_name or (ae_title, ae_title, "99CMBNODE")

"""A ledger, a strict worklist manager in the same process, and a performer between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.archive import Archive
from node.deliver.http import ServiceResponse
from node.ledger import Ledger
from node.settings import DicomDestination, QueueSettings, Settings
from node.settings.work_items import WorkItemSettings
from node.work_items import WorkItemPerformer
from node.work_items.manager import ManagerAwayError, WorklistManager
from tests.node.conftest import Clock
from tests.node.ledger_factory import MR, uid
from tests.worklist_manager import UPS_PUSH, ReferenceManager

DETECTION = ("110004", "Computer Aided Detection", "DCM")
POLL_S = 30.0


@dataclass(frozen=True)
class DirectManager(WorklistManager):
    """A manager without a network between; `outages` says what becomes of the next requests."""

    reference: ReferenceManager = field(default_factory=ReferenceManager)
    outages: list[str] = field(default_factory=list)

    def _ask(self, method: str, path: str, dataset: Dataset | None = None) -> ServiceResponse:
        outage = self.outages.pop(0) if self.outages else ""
        if outage == "request lost":
            raise ManagerAwayError("no route")
        content = b"" if dataset is None else json.dumps([dataset.to_json_dict()]).encode()
        given = self.reference.answer(method, path, content)
        if outage == "answer lost":
            raise ManagerAwayError("no answer")
        return ServiceResponse(given.status, given.content_type, given.content, given.headers.get("Warning", ""))


class Site:
    """What a test needs."""

    def __init__(self, ledger: Ledger, clock: Clock, folder: Path, **given: Any) -> None:
        self.ledger, self.clock = ledger, clock
        where = WorkItemSettings(url="http://manager.test/ups", poll_s=POLL_S, **given)
        pacs = DicomDestination(ae_title="PACS", host="127.0.0.1", port=104)
        queue = QueueSettings(retry_first_s=5, retry_longest_s=20)
        self.settings = Settings(
            data_dir=folder, destinations={"pacs": pacs, "research": pacs}, work_items=where, queue=queue
        )
        self.manager = DirectManager(where)
        self.worklist = self.manager.reference
        self.performer = WorkItemPerformer(
            self.settings, ledger, Archive(folder, 0), self.manager, clock=lambda: clock().timestamp()
        )
        self.performer.start()

    def work(self, *outages: str) -> None:
        """One pass of the performer, with these outages of the manager."""
        self.manager.outages[:] = outages
        self.performer.work()
        self.manager.outages.clear()

    def catch_up(self) -> None:
        """The manager works, and every pause is over."""
        for _ in range(4):
            self.clock.forward(200)
            self.work()

    def uids(self) -> list[str]:
        """Work items at the manager, in the order in which they came."""
        return list(self.worklist.items)

    def states(self) -> list[str]:
        return [self.worklist.state(one) for one in self.uids()]


def scheduled_item(
    name: str,
    study: str,
    series: Sequence[str] = ("swi",),
    slices: int = 3,
    station: tuple[str, str, str] | None = ("CMBNODE", "CMBNODE", "99CMBNODE"),
    workitem: tuple[str, str, str] = DETECTION,
    url: str = "",
) -> Dataset:
    """An item that a department schedules for the node, about series of the ledger factory's studies."""
    references = []
    for one in series:
        instances = [(MR, uid(study, one, number)) for number in range(slices)]
        references.append(reference(uid(study), uid(study, one), instances, url))
    return new_item(uid("item", name), uid(study), references, station, workitem)


def reference(study_uid: str, series_uid: str, instances: Sequence[tuple[str, str]], url: str = "") -> Dataset:
    ds = Dataset()
    ds.TypeOfInstances, ds.StudyInstanceUID, ds.SeriesInstanceUID = "DICOM", study_uid, series_uid
    ds.ReferencedSOPSequence = []
    for sop_class, sop_instance in instances:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, sop_instance
        ds.ReferencedSOPSequence.append(one)
    location = Dataset()
    if url:
        location.RetrieveURL = url
        ds.WADORSRetrievalSequence = [location]
    else:
        location.RetrieveAETitle = "PACS"
        ds.DICOMRetrievalSequence = [location]
    return ds


def new_item(
    item_uid: str,
    study_uid: str,
    references: list[Dataset],
    station: tuple[str, str, str] | None,
    workitem: tuple[str, str, str] = DETECTION,
) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.TransactionUID = UPS_PUSH, item_uid, None
    ds.ScheduledProcedureStepPriority, ds.ProcedureStepState = "MEDIUM", "SCHEDULED"
    ds.ProcedureStepLabel, ds.WorklistLabel = "Find microbleeds", "AI"
    ds.ScheduledProcedureStepStartDateTime, ds.InputReadinessState = "20260301080000", "READY"
    ds.ScheduledStationNameCodeSequence = [code(station)] if station else []
    ds.ScheduledWorkitemCodeSequence, ds.InputInformationSequence = [code(workitem)], references
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "", ""
    ds.StudyInstanceUID, ds.CommentsOnTheScheduledProcedureStep = study_uid, ""
    ds.AdmissionID, ds.AdmittingDiagnosesDescription = "", ""
    for name in (
        "ScheduledProcessingParametersSequence", "ScheduledStationClassCodeSequence",
        "ScheduledStationGeographicLocationCodeSequence", "OtherPatientIDsSequence", "IssuerOfAdmissionIDSequence",
        "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence", "ProcedureStepProgressInformationSequence",
        "UnifiedProcedureStepPerformedProcedureSequence",
    ):  # fmt: skip
        setattr(ds, name, [])
    return ds


def code(term: tuple[str, str, str]) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodeMeaning, ds.CodingSchemeDesignator = term
    return ds

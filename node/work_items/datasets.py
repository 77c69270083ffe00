"""What does a work item say? The data sets by PS3.4 table CC.2.5-3 that the manager is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from pydicom import Dataset

from node.ledger import Job, Priority, StudyRecord, WorkItem, WorkItemState
from node.settings.work_items import CodedTerm, WorkItemSettings

from .progress import WantedState

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""SOP class of every work item, whoever uses it (PS3.4 CC.3.1)."""
LABEL = "Cerebral microbleeds on SWI"
_PRIORITIES = {Priority.STAT: "HIGH", Priority.HIGH: "HIGH", Priority.ROUTINE: "MEDIUM", Priority.LOW: "LOW"}


@dataclass(frozen=True)
class LocatedInstance:
    """An instance, and where it can be retrieved.

    Parameters
    ----------
    ae_titles : tuple of str
        DICOM nodes that have it.
    urls : tuple of str
        Its series at DICOMweb services that have it.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    ae_titles: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkItemWriter:
    """Writes the data sets of work items.

    Parameters
    ----------
    ae_title : str
        The node's.
    zone : tzinfo or None
        Time zone of the times; ``None``: the host's.
    """

    settings: WorkItemSettings
    ae_title: str
    zone: tzinfo | None = None

    def new_item(self, item: WorkItem, job: Job, study: StudyRecord, inputs: Sequence[LocatedInstance]) -> Dataset:
        """Write the item that the node creates for a job (N-CREATE)."""
        ds = _utf8()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.TransactionUID = UPS_PUSH, item.workitem_uid, None
        ds.ScheduledProcedureStepPriority = _PRIORITIES[job.priority]
        ds.ProcedureStepLabel, ds.WorklistLabel = LABEL, self.settings.worklist_label
        ds.ScheduledProcessingParametersSequence = []
        ds.ScheduledStationNameCodeSequence = [_code(self.settings.station(self.ae_title))]
        ds.ScheduledStationClassCodeSequence = self._station_class
        ds.ScheduledStationGeographicLocationCodeSequence = []
        ds.ScheduledProcedureStepStartDateTime = self._time(job.created_at)
        ds.ScheduledWorkitemCodeSequence = [_code(self.settings.workitem_codes[0])]
        ds.CommentsOnTheScheduledProcedureStep = f"cmb-node job {job.id}, profile {job.profile}"
        ds.InputReadinessState = "READY"
        ds.InputInformationSequence = references(inputs)
        ds.StudyInstanceUID = study.study_instance_uid
        _describe_patient(ds, study)
        if item.replaces is not None:
            ds.ReplacedProcedureStepSequence = [_reference(UPS_PUSH, item.replaces)]
        ds.ProcedureStepState = WorkItemState.SCHEDULED.value
        ds.ProcedureStepProgressInformationSequence = []
        ds.UnifiedProcedureStepPerformedProcedureSequence = []
        return ds

    def progress(self, transaction_uid: str, words: str) -> Dataset:
        """Write how an item proceeds (N-SET)."""
        ds = _utf8()
        ds.TransactionUID = transaction_uid
        ds.ProcedureStepProgressInformationSequence = [_with("ProcedureStepProgressDescription", words)]
        return ds

    def final(
        self,
        transaction_uid: str,
        wanted: WantedState,
        job: Job | None,
        outputs: Sequence[LocatedInstance],
        now: datetime,
    ) -> Dataset:
        """Write what an item needs before it is COMPLETED or CANCELED (the final states of table CC.2.5-3)."""
        ds = self.progress(transaction_uid, wanted.words)
        if wanted.state == WorkItemState.CANCELED:
            progress = ds.ProcedureStepProgressInformationSequence[0]
            progress.ProcedureStepCancellationDateTime = self._time(now)
            progress.ReasonForCancellation = wanted.words
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [_code(wanted.reason)]
        if job is not None:
            ds.UnifiedProcedureStepPerformedProcedureSequence = [self._performed(job, outputs, now)]
        return ds

    def _performed(self, job: Job, outputs: Sequence[LocatedInstance], now: datetime) -> Dataset:
        ds = Dataset()
        ds.PerformedStationNameCodeSequence = [_code(self.settings.station(self.ae_title))]
        ds.PerformedStationClassCodeSequence = self._station_class
        ds.PerformedStationGeographicLocationCodeSequence = []
        ds.PerformedProcedureStepStartDateTime = self._time(job.started_at or job.created_at)
        ds.PerformedProcedureStepDescription = LABEL
        ds.CommentsOnThePerformedProcedureStep = f"cmb-node job {job.id}, profile {job.profile}"
        ds.PerformedWorkitemCodeSequence = [_code(self.settings.workitem_codes[0])]
        ds.PerformedProcedureStepEndDateTime = self._time(job.finished_at or now)
        ds.OutputInformationSequence = references(outputs)
        return ds

    @property
    def _station_class(self) -> list[Dataset]:
        return [_code(self.settings.station_class)] if self.settings.station_class is not None else []

    def _time(self, at: datetime) -> str:
        """A time as DICOM writes it, with the offset of its zone."""
        return at.astimezone(self.zone).strftime("%Y%m%d%H%M%S.%f%z")


def references(instances: Iterable[LocatedInstance]) -> list[Dataset]:
    """Refer to instances and where they are (Referenced Instances and Access Macro), one item for each series."""
    by_series: dict[tuple[object, ...], Dataset] = {}
    for one in instances:
        key = (one.study_instance_uid, one.series_instance_uid, one.ae_titles, one.urls)
        if key not in by_series:
            by_series[key] = _access(one)
        by_series[key].ReferencedSOPSequence.append(_reference(one.sop_class_uid, one.sop_instance_uid))
    return list(by_series.values())


def _access(one: LocatedInstance) -> Dataset:
    ds = Dataset()
    ds.TypeOfInstances = "DICOM"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = one.study_instance_uid, one.series_instance_uid
    ds.ReferencedSOPSequence = []
    if one.ae_titles:
        ds.DICOMRetrievalSequence = [_with("RetrieveAETitle", title) for title in one.ae_titles]
    if one.urls:
        ds.WADORSRetrievalSequence = [_with("RetrieveURL", url) for url in one.urls]
    return ds


def _describe_patient(ds: Dataset, study: StudyRecord) -> None:
    """Whose study it is, and which order it belongs to (Unified Procedure Step Relationship Module)."""
    ds.PatientName, ds.PatientID = study.patient_name, study.patient_id
    if study.issuer_of_patient_id:
        ds.IssuerOfPatientID = study.issuer_of_patient_id
    ds.OtherPatientIDsSequence = []
    ds.PatientBirthDate, ds.PatientSex = study.patient_birth_date, study.patient_sex
    ds.AdmissionID, ds.IssuerOfAdmissionIDSequence = "", []
    ds.AdmittingDiagnosesDescription, ds.AdmittingDiagnosesCodeSequence = "", []
    request = Dataset()
    request.StudyInstanceUID, request.AccessionNumber = study.study_instance_uid, study.accession_number
    request.IssuerOfAccessionNumberSequence = []
    request.OrderPlacerIdentifierSequence, request.OrderFillerIdentifierSequence = [], []
    request.RequestedProcedureID, request.RequestedProcedureDescription = "", study.study_description
    request.RequestedProcedureCodeSequence = []
    ds.ReferencedRequestSequence = [request]


def _utf8() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"  # JSON is UTF-8 (PS3.18 F.2)
    return ds


def _with(keyword: str, value: str) -> Dataset:
    ds = Dataset()
    setattr(ds, keyword, value)
    return ds


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return ds


def _code(term: CodedTerm) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodeMeaning, ds.CodingSchemeDesignator = term
    return ds

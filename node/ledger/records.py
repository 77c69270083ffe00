"""What does the ledger take in and give out? Frozen records; no SQL, no behaviour.

Times are aware datetimes in UTC. UIDs are DICOM UIDs as text. Paths are relative to the archive or the outbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .correction import AddedMicrobleed as AddedMicrobleed
from .correction import CertaintyVerdict as CertaintyVerdict
from .correction import Correction as Correction
from .correction import LesionVerdict as LesionVerdict
from .states import DeliveryState as DeliveryState
from .states import JobState as JobState
from .states import Priority as Priority
from .states import SeriesState as SeriesState
from .states import SortColumn as SortColumn
from .states import StorageOutcome as StorageOutcome
from .states import StudyState as StudyState

QA_PATIENT_ID = "CMBNODE-QA"
"""Patient ID of the phantoms of site QA; no patient has it."""


@dataclass(frozen=True, kw_only=True)
class NewInstance:
    """One instance that was made durable in the archive.

    Parameters
    ----------
    orientation : str
        Equal for parallel slices (:func:`node.receive.ingest.slice_place`); empty if the object has no plane.
    position : float or None
        Place of the slice along its normal, mm.
    association : str
        Names the association that brought it, as in :meth:`Ledger.release_series`.
    requested : bool or None
        Whether its sender says that the node asked for it (C-MOVE, WADO-RS); ``None`` if it does not say.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str
    size: int
    sha256: str
    received_at: datetime
    calling_ae: str = ""
    peer: str = ""
    association: str = ""
    requested: bool | None = None
    number_of_frames: int = 1
    orientation: str = ""
    position: float | None = None
    # the study and its patient
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    referring_physician: str = ""
    # the series
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    manufacturer: str = ""
    body_part: str = ""
    station_name: str = ""
    institution: str = ""


@dataclass(frozen=True)
class InstanceRecord:
    """A stored instance, as far as the rest of the node needs it."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    size: int
    sha256: str
    number_of_frames: int
    received_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True)
class SeriesRecord:
    """A series and what became of it."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    series_number: int | None
    description: str
    manufacturer: str
    body_part: str
    station_name: str
    institution: str
    calling_ae: str
    state: SeriesState
    revision: int
    role: str
    rule: str
    why: str
    needs_confirmation: bool
    whole: bool  # it settled with evidence that nothing is missing; otherwise `settled_why` says what was lacking
    settled_why: str
    instance_count: int
    first_instance_at: datetime
    last_instance_at: datetime


@dataclass(frozen=True)
class ReceivingSeries:
    """A series that has not settled, with the evidence that it is complete.

    Parameters
    ----------
    places : tuple of (str, float or None, int)
        Orientation key, position along the normal (mm) and number of frames of each instance.
    open_associations : int
        Associations that brought instances and have not ended.
    last_ended_released : bool
        The last one to end was released, not aborted.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    revision: int
    last_instance_at: datetime
    open_associations: int
    last_ended_released: bool
    places: tuple[tuple[str, float | None, int], ...]


@dataclass(frozen=True)
class StudyRecord:
    """A study, its patient, and the job that stands for it now."""

    study_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_time: str
    study_description: str
    referring_physician: str
    revision: int
    routed_revision: int | None
    why: str
    current_job_id: int | None
    first_received_at: datetime
    last_received_at: datetime
    removed_at: datetime | None
    fetched: bool  # it came only because it was asked for, to compare a later one with
    held_since: datetime | None  # it waits for an earlier study

    @property
    def is_phantom(self) -> bool:
        """Whether it is a phantom of site QA, whose results are nobody's."""
        return self.patient_id == QA_PATIENT_ID


@dataclass(frozen=True)
class SeriesVerdict:
    """What routing decided about one series."""

    series_instance_uid: str
    analysed: bool  # the SWI of the job, or used with it; otherwise ignored
    role: str
    rule: str
    why: str
    needs_confirmation: bool = False


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to open. Every other live job of the same study is superseded by it.

    Parameters
    ----------
    input_revision : int or None
        Sum of the revisions of its series when their files were read; ``None``: as they are now. A job whose series got
        more images since then is held back, for routing is about to supersede it.
    prior_job_id : int or None
        The analysis of an earlier study of the patient that it is compared with.
    """

    key: str
    study_instance_uid: str
    swi_series_uid: str | None = None  # none: the SWI is computed from phase and magnitude
    phase_series_uid: str | None = None
    magnitude_series_uid: str | None = None
    profile: str
    priority: Priority = Priority.ROUTINE
    destinations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    input_revision: int | None = None
    prior_job_id: int | None = None


@dataclass(frozen=True)
class Job:
    """One analysis of one set of images with one profile, or one correction of its result."""

    id: int
    key: str
    study_instance_uid: str
    swi_series_uid: str | None  # none: the SWI is computed from phase and magnitude
    phase_series_uid: str | None
    magnitude_series_uid: str | None
    profile: str
    priority: Priority
    destinations: tuple[str, ...]
    warnings: tuple[str, ...]
    state: JobState
    why: str
    progress: str
    attempts: int
    owner: str
    lease_expires_at: datetime | None
    supersedes: int | None
    superseded_by: int | None
    created_at: datetime
    started_at: datetime | None
    analysed_at: datetime | None
    finished_at: datetime | None
    lost: int = 0  # workers that died or fell silent while they analysed it
    postponed: int = 0  # how often an outage of the database or the disk ended its analysis
    not_before: datetime | None = None  # it pauses until then
    correction: Correction | None = None  # what it applies to the result that it supersedes; then no network runs
    prior_job_id: int | None = None  # the analysis of an earlier study that it is compared with

    @property
    def series_uids(self) -> tuple[str, ...]:
        """The series it reads: SWI, then phase and magnitude if there are any."""
        named = (self.swi_series_uid, self.phase_series_uid, self.magnitude_series_uid)
        return tuple(dict.fromkeys(uid for uid in named if uid))


@dataclass(frozen=True)
class ResultFile:
    """A result object in the outbox of its job."""

    kind: str  # seg, sr, capture
    sop_instance_uid: str
    sop_class_uid: str
    path: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Delivery:
    """One result object on its way to one destination."""

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    owner: str
    lease_expires_at: datetime | None
    next_attempt_at: datetime
    status: int | None
    answer: str
    created_at: datetime
    first_attempt_at: datetime | None
    accepted_at: datetime | None
    priority: Priority
    result: ResultFile
    commit_by: datetime | None = None  # the destination must have committed to keep it by then
    commit_resent: int = 0


@dataclass(frozen=True)
class QuarantinedObject:
    """An object that was put into quarantine instead of being stored."""

    id: int
    at: datetime
    path: str
    why: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    size: int
    sha256: str
    calling_ae: str
    peer: str


@dataclass(frozen=True)
class HistoryEntry:
    """One change of state."""

    id: int
    at: datetime
    entity: str  # study, series, job, delivery, instance
    entity_id: str
    from_state: str
    to_state: str
    why: str
    actor: str


@dataclass(frozen=True)
class LedgerCounts:
    """Numbers for metrics and the worklist's head."""

    studies: int
    series: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    waiting_by_destination: dict[str, int] = field(default_factory=dict)
    uncommitted_by_destination: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    oldest_queued_at: datetime | None = None
    oldest_waiting_by_destination: dict[str, datetime] = field(default_factory=dict)
    last_received_at: datetime | None = None  # of a study that was sent, not fetched


@dataclass(frozen=True)
class RemovableStudy:
    """A study whose images may go: everything about it is dealt with."""

    study_instance_uid: str
    paths: tuple[str, ...]
    job_ids: tuple[int, ...]


Json = dict[str, Any]

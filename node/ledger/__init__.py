"""What is the state of every series, job and delivery? The one source of truth; the queue only signals work.

The only place with SQL. Every change of state is one transaction with a history row, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from .accounts import Accounts
from .audit_events import (
    AuditEvent,
    FeedBatch,
    FeedState,
    NewStudiesQuery,
    ObjectRefused,
    PriorQuery,
    ResultSent,
    SeriesReceived,
)
from .audit_feed import AuditFeed
from .clock_changes import ClockChanges
from .commitment_requests import CommitmentRequests, ReceivedCommitmentRequest
from .commitments import Commitments
from .corrections import Corrections
from .deliveries import FailingDestination
from .destination_records import DestinationRecord, DestinationRecords
from .erasure import Erasure
from .intake import Intake
from .leadership import Lead
from .login_attempts import Attempts
from .monitoring import MonitoredStudy, Monitoring
from .notices import Notice, NoticeCondition, NoticedJob, NoticeMessage, Notices
from .prior_records import EarlierStudy, PriorFetch, PriorRequest, PriorState, TransferCounts
from .prior_requests import PriorRequests
from .pull_records import AnnouncedStudy, Pull, PullSource, PullState
from .pulls import Pulls
from .queries import Queries
from .records import (
    AddedMicrobleed,
    CertaintyVerdict,
    Correction,
    Delivery,
    DeliveryState,
    HistoryEntry,
    InstanceRecord,
    Job,
    JobState,
    LedgerCounts,
    LesionVerdict,
    NewInstance,
    NewJob,
    Priority,
    QuarantinedObject,
    ReceivingSeries,
    RemovableStudy,
    ResultFile,
    SeriesRecord,
    SeriesState,
    SeriesVerdict,
    SortColumn,
    StorageOutcome,
    StudyRecord,
    StudyState,
)
from .routing_decisions import RoutingDecisions
from .tallies import Tallies, TallyBuffer
from .work_item_records import WorkItem, WorkItemBacklog, WorkItemInput, WorkItemState
from .work_items import WorkItems
from .worklist import Worklist
from .worklist_records import FindingCounts, JobSummary, WorklistFilters, WorklistRow


class Ledger(
    Intake,
    PriorRequests,
    Pulls,
    RoutingDecisions,
    Corrections,
    Commitments,
    CommitmentRequests,
    DestinationRecords,
    Queries,
    Worklist,
    Accounts,
    Attempts,
    ClockChanges,
    Erasure,
    Tallies,
    Notices,
    Monitoring,
    AuditFeed,
    WorkItems,
):
    """The ledger, one class over its parts; each part is a module of this package.

    Safe to use from several threads, and from several processes with a `Ledger` each.
    """


__all__ = [
    "AddedMicrobleed",
    "AnnouncedStudy",
    "AuditEvent",
    "CertaintyVerdict",
    "Correction",
    "Delivery",
    "DeliveryState",
    "DestinationRecord",
    "EarlierStudy",
    "FailingDestination",
    "FeedBatch",
    "FeedState",
    "FindingCounts",
    "HistoryEntry",
    "InstanceRecord",
    "Job",
    "JobState",
    "JobSummary",
    "Lead",
    "Ledger",
    "LedgerCounts",
    "LesionVerdict",
    "MonitoredStudy",
    "NewInstance",
    "NewJob",
    "NewStudiesQuery",
    "Notice",
    "NoticeCondition",
    "NoticeMessage",
    "NoticedJob",
    "ObjectRefused",
    "PriorFetch",
    "PriorQuery",
    "PriorRequest",
    "PriorState",
    "Priority",
    "Pull",
    "PullSource",
    "PullState",
    "QuarantinedObject",
    "ReceivedCommitmentRequest",
    "ReceivingSeries",
    "RemovableStudy",
    "ResultFile",
    "ResultSent",
    "SeriesReceived",
    "SeriesRecord",
    "SeriesState",
    "SeriesVerdict",
    "SortColumn",
    "StorageOutcome",
    "StudyRecord",
    "StudyState",
    "TallyBuffer",
    "TransferCounts",
    "WorkItem",
    "WorkItemBacklog",
    "WorkItemInput",
    "WorkItemState",
    "WorklistFilters",
    "WorklistRow",
]

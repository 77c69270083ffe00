"""What is the state of every series, job and delivery? The one source of truth; the queue is only a bell.

The only place with SQL. Every change of state is one transaction with a history row, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from node.ledger.accounts import Accounts
from node.ledger.attempts import Attempts
from node.ledger.corrections import Corrections
from node.ledger.deliveries import Deliveries
from node.ledger.intake import Intake
from node.ledger.prior_records import EarlierStudy, PriorCounts, PriorFetch, PriorRequest, PriorState
from node.ledger.prior_requests import PriorRequests
from node.ledger.queries import Queries
from node.ledger.records import (
    AddedBleed,
    Burden,
    Change,
    Correction,
    Counts,
    Delivery,
    DeliveryState,
    Filters,
    Instance,
    InstanceRecord,
    Job,
    JobState,
    JobSummary,
    NewJob,
    Priority,
    Quarantined,
    ReceivingSeries,
    RemovableStudy,
    ResultFile,
    Series,
    SeriesState,
    SeriesVerdict,
    Sort,
    Stored,
    Study,
    StudyState,
    Verdict,
    WorklistRow,
)
from node.ledger.verdicts import Verdicts
from node.ledger.worklist import Worklist


class Ledger(Intake, PriorRequests, Verdicts, Corrections, Deliveries, Queries, Worklist, Accounts, Attempts):
    """The ledger, one class over its parts; each part is a module of this package.

    Safe to use from several threads, and from several processes with a `Ledger` each.
    """


__all__ = [
    "AddedBleed",
    "Burden",
    "Change",
    "Correction",
    "Counts",
    "Delivery",
    "DeliveryState",
    "EarlierStudy",
    "Filters",
    "Instance",
    "InstanceRecord",
    "Job",
    "JobState",
    "JobSummary",
    "Ledger",
    "NewJob",
    "PriorCounts",
    "PriorFetch",
    "PriorRequest",
    "PriorState",
    "Priority",
    "Quarantined",
    "ReceivingSeries",
    "RemovableStudy",
    "ResultFile",
    "Series",
    "SeriesState",
    "SeriesVerdict",
    "Sort",
    "Stored",
    "Study",
    "StudyState",
    "Verdict",
    "WorklistRow",
]

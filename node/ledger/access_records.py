"""Which records describe accounts and the audit? Frozen records and short vocabularies; no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from node.roles import UserRole


class AuditAction(StrEnum):
    """What the audit records."""

    SIGN_IN = "signed in"
    REFUSAL = "sign-in refused"
    SIGN_OUT = "signed out"
    PASSWORD = "password changed"  # noqa: S105 - an action, not a password
    LIST = "looked at the list"
    STUDY = "looked at a study"
    DOWNLOAD = "downloaded"
    CORRECTION = "corrected"
    RETRY = "retried a job"
    REROUTE = "routed a study again"
    SEND = "sent a result again"
    PRIORITY = "changed a priority"
    USER = "changed a user"
    AUDIT = "looked at the audit"
    DETECTOR = "looked at the detector's findings"
    ADMINISTRATION = "looked at administration"
    TEST = "tested a destination"
    DRY_RUN = "tried the routing rules"
    ERASED = "erased a study"
    BACKUP = "made a backup"
    RESTORED = "restored a backup"
    START = "started the node"
    STOP = "stopped the node"


@dataclass(frozen=True)
class Account:
    """A user who may sign in, unless the account is disabled."""

    name: str
    display_name: str
    role: UserRole
    created_at: datetime
    password_set_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True)
class AuditEntry:
    """One row of the audit; study and patient are empty where the action concerns none."""

    id: int
    at: datetime
    user_name: str
    action: str
    study_instance_uid: str
    detail: str
    address: str
    patient_name: str
    patient_id: str
    accession_number: str


@dataclass(frozen=True, kw_only=True)
class AuditFilters:
    """Filters of the audit; an empty field filters nothing.

    `text` is part of the patient's name or ID, the accession number, the details or the address; case is ignored.
    """

    user_name: str = ""
    action: str = ""
    study_uid: str = ""
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None

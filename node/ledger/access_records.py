"""Who may sign in, and what is written down about them? Frozen records and short vocabularies; no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What a person may do; each role may do what those before it may."""

    VIEWER = "viewer"
    READER = "reader"
    ADMINISTRATOR = "administrator"

    def may_act_as(self, wanted: Role) -> bool:
        """Say whether this role includes `wanted`."""
        order = list(Role)
        return order.index(self) >= order.index(wanted)


class SessionKind(StrEnum):
    """Who holds a token: a person's browser, or a program."""

    BROWSER = "browser"
    PROGRAM = "program"


class Action(StrEnum):
    """What is written down."""

    SIGNED_IN = "signed in"
    REFUSED = "sign-in refused"
    SIGNED_OUT = "signed out"
    PASSWORD = "password changed"  # noqa: S105 - an action, not a password
    LIST = "looked at the list"
    STUDY = "looked at a study"
    DOWNLOAD = "downloaded"
    CORRECTED = "corrected"
    USER = "changed a user"
    AUDIT = "looked at the audit"


@dataclass(frozen=True)
class Account:
    """Someone who may sign in, unless disabled."""

    name: str
    display_name: str
    role: Role
    created_at: datetime
    password_set_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True)
class AuditEntry:
    """One thing that someone did; the study and its patient are empty where none was concerned."""

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
    """What the audit is narrowed to; an empty field narrows nothing.

    `text` is part of the patient's name or ID, the accession number, the detail or the address, in any case.
    """

    user_name: str = ""
    action: str = ""
    study_uid: str = ""
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None

"""Who looked at what, and who changed what? Rows are written once, never changed, and deleted when they expire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, or_, select

from .access_records import AuditEntry, AuditFilters
from .access_tables import audit
from .engine import Store, clean
from .models import studies

_PATIENT = ("patient_name", "patient_id", "accession_number")


class AuditTrail(Store):
    """The audit: one row per action."""

    def record_access(
        self,
        user_name: str,
        action: str,
        study_uid: str = "",
        detail: str = "",
        address: str = "",
        *,
        once_within_s: float = 0.0,
    ) -> bool:
        """Record what someone did.

        Parameters
        ----------
        once_within_s : float
            Write nothing if the same user's same action on the same study was recorded less than this many seconds ago.

        Returns
        -------
        bool
            Whether a row was written.
        """
        with self._write() as connection:
            if once_within_s and self._has_recent(connection, user_name, action, study_uid, once_within_s):
                return False
            self._insert_access(connection, user_name, action, study_uid, detail, address)
            return True

    def audit(self, filters: AuditFilters | None = None, *, limit: int = 100, offset: int = 0) -> list[AuditEntry]:
        """The audit, newest first."""
        query = select_audit().where(_matches(filters or AuditFilters())).order_by(audit.c.id.desc())
        query = query.limit(limit).offset(offset)
        with self._read() as connection:
            return [AuditEntry(**row) for row in connection.execute(query).mappings()]

    def forget_audit(self, before: datetime) -> int:
        """Delete the rows before a time; returns how many."""
        with self._write() as connection:
            return connection.execute(delete(audit).where(audit.c.at < before)).rowcount

    def _has_recent(self, connection: Connection, user_name: str, action: str, study_uid: str, within_s: float) -> bool:
        same = and_(
            audit.c.study_instance_uid == clean(study_uid, 64),
            audit.c.user_name == clean(user_name, 64),
            audit.c.action == action,
            audit.c.at > self._clock() - timedelta(seconds=within_s),
        )
        return connection.scalar(select(audit.c.id).where(same).limit(1)) is not None

    def _insert_access(
        self,
        connection: Connection,
        user_name: str,
        action: str,
        study_uid: str = "",
        detail: str = "",
        address: str = "",
    ) -> None:
        connection.execute(
            insert(audit).values(
                at=self._clock(),
                user_name=clean(user_name, 64),
                action=action,
                study_instance_uid=clean(study_uid, 64),
                detail=clean(detail),
                address=clean(address, 64),
            )
        )


def select_audit() -> Select[Any]:
    """The columns of :class:`AuditEntry`; patients whose study is not in the ledger any more are empty."""
    patient = [func.coalesce(studies.c[name], "").label(name) for name in _PATIENT]
    return select(audit, *patient).outerjoin(studies, studies.c.study_instance_uid == audit.c.study_instance_uid)


def _matches(filters: AuditFilters) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if filters.user_name:
        conditions.append(audit.c.user_name == filters.user_name)
    if filters.action:
        conditions.append(audit.c.action == filters.action)
    if filters.study_uid:
        conditions.append(audit.c.study_instance_uid == filters.study_uid)
    if filters.text:
        columns = (audit.c.detail, audit.c.address, *(studies.c[name] for name in _PATIENT))
        conditions.append(or_(*(func.lower(c).contains(filters.text.lower(), autoescape=True) for c in columns)))
    if filters.since is not None:
        conditions.append(audit.c.at >= filters.since)
    if filters.until is not None:
        conditions.append(audit.c.at < filters.until)
    return and_(True, *conditions)

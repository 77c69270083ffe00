"""What did routing decide about a study and its series?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from pipeline.errors import InputError

from .engine import clean, locked
from .jobs import Jobs
from .metrics import ROUTED, count
from .models import series, studies
from .records import SeriesState, SeriesVerdict

_ACTOR = "routing"


class RoutingDecisions(Jobs):
    """Decisions of routing about studies and series; they hold until the study changes."""

    def mark_routed(
        self,
        study_uid: str,
        revision: int,
        verdicts: Iterable[SeriesVerdict] = (),
        why: str = "",
        *,
        job_id: int | None = None,
    ) -> bool:
        """Record what routing decided about a study at `revision`; return whether that is still its revision.

        If it is not, nothing is recorded and the study stays ready. Without a job, jobs of the study whose images have
        changed are superseded, as no new job replaces them.
        """
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            for verdict in sorted(verdicts, key=lambda v: v.series_instance_uid):  # one order: no deadlock
                self._record_verdict(connection, verdict)
            study = connection.execute(locked(select(studies).where(where))).mappings().one()
            if study["revision"] != revision:
                connection.rollback()
                return False
            values: dict[str, Any] = {"routed_revision": revision, "why": clean(why), "held_since": None}
            connection.execute(update(studies).where(where).values(values))
            if study["routed_revision"] != revision:
                before = "" if study["routed_revision"] is None else f"routed {study['routed_revision']}"
                self._log(connection, "study", study_uid, before, f"routed {revision}", why, _ACTOR)
                self._tally(connection, [count(ROUTED, outcome="ignored" if job_id is None else "analysed")])
            if job_id is None:
                self._supersede_stale(connection, study_uid, why)
            return True

    def route_again(self, study_uid: str, actor: str) -> None:
        """Have a study routed again, for example after a change of the rules.

        Raises
        ------
        InputError
            The node has no such study.
        """
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            revision = connection.scalar(select(studies.c.revision).where(where).with_for_update())
            if revision is None:
                raise InputError("no such study", where=f"study {study_uid}", do="the worklist shows the UIDs")
            connection.execute(update(studies).where(where).values(revision=revision + 1))
            self._log(connection, "study", study_uid, f"routed {revision}", "to be routed again", "", actor)

    def _record_verdict(self, connection: Connection, verdict: SeriesVerdict) -> None:
        where = series.c.series_instance_uid == verdict.series_instance_uid
        row = connection.execute(locked(select(series).where(where))).mappings().one_or_none()
        if row is None or row["state"] == SeriesState.RECEIVING:
            return  # reopened meanwhile: the study will be routed again
        values = {
            "role": clean(verdict.role),
            "rule": clean(verdict.rule),
            "why": clean(verdict.why),
            "needs_confirmation": verdict.needs_confirmation,
        }
        state = SeriesState.SETTLED if verdict.analysed else SeriesState.IGNORED
        if state == row["state"]:
            connection.execute(update(series).where(where).values(values))
            return
        self._log(connection, "series", verdict.series_instance_uid, row["state"], state, verdict.why, _ACTOR)
        connection.execute(update(series).where(where).values(state=state, **values))

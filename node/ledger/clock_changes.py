"""What becomes of the times in the ledger when the clock of the machine jumps?

Leases, quiet periods and pauses are kept as points in time. After a jump they would be over at once, or last for weeks.
So they begin anew; nothing is lost but a little time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, exists, or_, select, update

from .access_tables import attempts, audit_feed
from .engine import Store
from .models import associations, deliveries, jobs, notices, series, studies
from .prior_records import PriorState
from .prior_tables import prior_requests
from .pull_records import PullState
from .pull_tables import pull_sources, pulls
from .records import DeliveryState, JobState, SeriesState
from .work_item_tables import work_items

SLACK_S = 60.0
"""Clocks of several machines differ a little; a time further ahead than this comes from a clock that was wrong."""


class ClockChanges(Store):
    """Times after a change of the clock."""

    def begin_periods_anew(self, now: datetime, lease_s: float) -> None:
        """After a jump: every lease, quiet period and pause begins now."""
        long_ago = now - timedelta(days=36_500)
        self._correct(_changes(now, lease_s, after=long_ago, pauses_after=now), now, long_ago)

    def correct_future_times(self, now: datetime, lease_s: float, longest_pause_s: float) -> int:
        """Correct times that no right clock can have written, after the clock was set back; how many rows."""
        after = now + timedelta(seconds=SLACK_S + lease_s)
        changes = list(_changes(now, lease_s, after, pauses_after=after + timedelta(seconds=longest_pause_s)))
        wrong = [exists().select_from(table).where(where) for table, where, _ in changes]
        wrong.append(exists().select_from(prior_requests).where(_open_request(after)))
        with self._read() as connection:
            if not connection.scalar(select(or_(*wrong))):  # one statement, as every round of the sweep asks
                return 0
        return self._correct(changes, now, after)

    def _correct(self, changes: Iterable[_Change], now: datetime, after: datetime) -> int:
        with self._write() as connection:
            corrected = sum(
                connection.execute(update(table).where(where).values(values)).rowcount
                for table, where, values in changes
            )
            requests = connection.execute(select(prior_requests).where(_open_request(after))).mappings().all()
            for request in requests:
                waits = request["deadline_at"] - request["created_at"]
                where = prior_requests.c.study_instance_uid == request["study_instance_uid"]
                values = {"created_at": now, "deadline_at": now + waits, "next_attempt_at": now}
                connection.execute(update(prior_requests).where(where).values(values))
            return corrected + len(requests)


_Change = tuple[Table, ColumnElement[bool], dict[str, datetime | None]]


def _open_request(after: datetime) -> ColumnElement[bool]:
    is_open = prior_requests.c.state.in_([PriorState.WAITING, PriorState.ASKED])
    return and_(is_open, prior_requests.c.created_at > after)


def _changes(now: datetime, lease_s: float, after: datetime, pauses_after: datetime) -> Iterator[_Change]:
    """Have what began or ends after `after` begin now, and end pauses that last beyond `pauses_after`."""
    lease = now + timedelta(seconds=lease_s)
    busy: tuple[tuple[Table, str], ...] = (
        (jobs, JobState.RUNNING),
        (deliveries, DeliveryState.SENDING),
        (prior_requests, PriorState.ASKED),
        (pulls, PullState.FETCHING),
    )
    for table, state in busy:
        yield table, and_(table.c.state == state, table.c.lease_expires_at > after), {"lease_expires_at": lease}
    receiving = and_(series.c.state == SeriesState.RECEIVING, series.c.last_instance_at > after)
    yield series, receiving, {"last_instance_at": now}
    waiting = deliveries.c.state == DeliveryState.WAITING
    sending = deliveries.c.state == DeliveryState.SENDING
    yield deliveries, and_(or_(waiting, sending), deliveries.c.first_attempt_at > after), {"first_attempt_at": now}
    yield deliveries, and_(waiting, deliveries.c.next_attempt_at > pauses_after), {"next_attempt_at": now}
    yield jobs, and_(jobs.c.state == JobState.QUEUED, jobs.c.not_before > pauses_after), {"not_before": None}
    yield pulls, and_(pulls.c.state == PullState.WAITING, pulls.c.next_attempt_at > pauses_after), {
        "next_attempt_at": now, "first_attempt_at": now,
    }  # fmt: skip
    yield pull_sources, pull_sources.c.next_query_at > pauses_after, {"next_query_at": now}
    yield pull_sources, pull_sources.c.lease_expires_at > after, {"lease_expires_at": lease}
    yield audit_feed, audit_feed.c.next_at > pauses_after, {"next_at": now}
    # One of them may be on its way just now: it gets as long as a lease.
    unsent = notices.c.sent_at.is_(None)
    yield notices, and_(unsent, notices.c.next_attempt_at > pauses_after), {"next_attempt_at": lease}
    yield work_items, work_items.c.next_at > pauses_after, {"next_at": now}
    yield work_items, work_items.c.fetch_at > pauses_after, {"fetch_at": now}
    unanswered = and_(deliveries.c.state == DeliveryState.ACCEPTED, deliveries.c.commit_by.is_not(None))
    yield deliveries, and_(unanswered, deliveries.c.accepted_at > after), {"accepted_at": now, "commit_by": now}
    # What is over moves only if it lies ahead: the order of events stays.
    ahead = max(after, now)
    yield associations, associations.c.ended_at > ahead, {"ended_at": now}
    yield studies, studies.c.last_received_at > ahead, {"last_received_at": now}
    yield jobs, jobs.c.finished_at > ahead, {"finished_at": now}
    yield attempts, attempts.c.at > ahead, {"at": now}
    yield notices, notices.c.at > ahead, {"at": now}

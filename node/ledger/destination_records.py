"""How is each destination doing? When it last accepted something, when it last did not and why, what waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, String, and_, cast, func, or_, select

from .engine import Store
from .models import deliveries, history
from .records import DeliveryState

_MOST_TRIED = 200
"""The last failure is looked for among this many of the deliveries that were tried in vain."""


@dataclass(frozen=True)
class DestinationRecord:
    """What the ledger knows of one destination.

    Parameters
    ----------
    accepted_at : datetime or None
        When it last accepted an object; ``None`` if it never did.
    failed_at : datetime or None
        When an object was last sent in vain; ``None`` if that is not known to have happened.
    failure : str
        What it answered then, or why it could not be reached.
    waiting, failed : int
        Objects that are still to be sent, and objects that are no longer tried.
    """

    name: str
    accepted_at: datetime | None = None
    failed_at: datetime | None = None
    failure: str = ""
    waiting: int = 0
    failed: int = 0


class DestinationRecords(Store):
    """Deliveries, by destination."""

    def destination_records(self) -> dict[str, DestinationRecord]:
        """Every destination that something was ever to be sent to, by name."""
        columns = (deliveries.c.destination, deliveries.c.state)
        query = select(*columns, func.count(), func.max(deliveries.c.accepted_at)).group_by(*columns)
        with self._read() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
            return {name: _record(connection, name, rows) for name in sorted({name for name, *_ in rows})}


def _record(connection: Connection, name: str, rows: list[tuple[str, str, int, datetime | None]]) -> DestinationRecord:
    own = [(state, number, accepted) for destination, state, number, accepted in rows if destination == name]
    accepted_at = max((accepted for *_, accepted in own if accepted is not None), default=None)
    number = {state: number for state, number, _ in own}
    failed_at, failure = _last_failure(connection, name)
    waiting = number.get(DeliveryState.WAITING, 0) + number.get(DeliveryState.SENDING, 0)
    return DestinationRecord(name, accepted_at, failed_at, failure, waiting, number.get(DeliveryState.FAILED, 0))


def _last_failure(connection: Connection, name: str) -> tuple[datetime | None, str]:
    """When something was last sent there in vain, and why."""
    in_vain = or_(
        deliveries.c.attempts > 1,
        deliveries.c.state == DeliveryState.FAILED,
        and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.attempts > 0),
    )
    tried = (
        select(cast(deliveries.c.id, String))
        .where(deliveries.c.destination == name, in_vain)
        .order_by(deliveries.c.id.desc())
        .limit(_MOST_TRIED)
    )
    failed = or_(
        history.c.to_state == DeliveryState.FAILED,
        and_(history.c.from_state == DeliveryState.SENDING, history.c.to_state == DeliveryState.WAITING),
    )
    query = (
        select(history.c.at, history.c.why)
        .where(history.c.entity == "delivery", history.c.entity_id.in_(tried), failed)
        # A worker that stopped or fell silent is not the destination's failure.
        .where(~history.c.why.startswith("given back"), ~history.c.why.endswith("fell silent"))
        .order_by(history.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return (row.at, row.why) if row is not None else (None, "")

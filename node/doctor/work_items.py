"""Does the worklist manager answer, and what has it not been told?"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from node.ledger import Ledger
from node.settings import Settings
from node.work_items.manager import ManagerAwayError, WorklistManager
from pipeline.errors import CmbError

from .verdict import Checkup, note, ok, wrong, wrong_because

_SUBJECT = "worklist manager"


def check_worklist_manager(settings: Settings) -> Iterator[Checkup]:
    """Search for a work item, and see what waits to be told."""
    if settings.work_items is None:
        return
    manager = WorklistManager(settings.work_items)
    try:
        yield ok(_SUBJECT, f"{manager.address} {manager.check()}")
    except ManagerAwayError as error:
        yield wrong(_SUBJECT, str(error), "check the address, the sign-in, and work_items")
    except CmbError as error:
        yield wrong_because(_SUBJECT, error)
    yield from _backlog(settings)


def _backlog(settings: Settings) -> Iterator[Checkup]:
    """What the ledger keeps for the manager; a database that does not answer has its own line."""
    if settings.database_url is None and not (settings.data_dir / "ledger.sqlite3").is_file():
        return
    ledger = Ledger(settings.ledger_url)
    try:
        backlog = ledger.work_item_backlog()
    except SQLAlchemyError:
        return
    finally:
        ledger.close()
    if backlog.why:
        what = f"{backlog.untold} work items are not up to date; the last attempt failed: {backlog.why}"
        yield note("work items", what, "they are brought up to date when the manager takes them")

"""Is the node healthy? The health check, which contains no patient data."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from node.archive import DiskSpace
from node.processes.parts import FETCHER, PARTS, PULLER, read_clock, read_not_running, read_parts
from node.queue import ANALYSE, QueueAwayError
from node.settings import Settings
from node.tls.certificates import certificate_notices

from .context import Context, context_of

router = APIRouter()
Shared = Annotated[Context, Depends(context_of)]


@router.api_route("/healthz", methods=["GET", "HEAD"])
def healthz(shared: Shared) -> JSONResponse:
    """Answer 200 if the node is well, or 503 and what is wrong.

    Well means that the ledger and Redis answer, that there is disk space for another study, and that every part of the
    node said within the last minute that it works.
    """
    checks = {"ledger": _ledger(shared), "redis": _redis(shared), "disk": _disk(shared)}
    parts = parts_of(shared.settings)
    well = all(answer == "ok" for answer in (*checks.values(), *parts.values()))
    clock = clock_notice(shared.settings) or "ok"  # a warning: the node works
    certificates = " ".join(certificate_notices(shared.settings)) or "ok"  # a warning, too
    warnings = {"clock": clock, "certificates": certificates}
    answer = {"status": "ok" if well else "unwell", **checks, **warnings, "parts": parts}
    return JSONResponse(answer, 200 if well else 503)


def clock_notice(settings: Settings) -> str:
    """What to tell people about a clock that jumped; empty if it did not."""
    report = read_clock(settings.data_dir)
    if report is None or not report.untrusted_s:
        return ""
    hours = f"{report.untrusted_s / 3600:.1f}"
    return f"The clock of this machine jumped. The node deletes no expired data for another {hours} hours."


def template_values(request: Request) -> dict[str, Any]:
    """Values for every template."""
    settings = context_of(request).settings
    return {"node_notices": [*filter(None, [clock_notice(settings)]), *certificate_notices(settings)]}


def _expected(settings: Settings) -> tuple[str, ...]:
    return (*PARTS, *([FETCHER] if settings.priors.asks else []), *([PULLER] if settings.pull else []))


def parts_of(settings: Settings) -> dict[str, str]:
    """What each part does: "ok", or why it does not work; a part may run several times, and each must work."""
    lives = read_parts(settings.data_dir)
    told = read_not_running(settings.data_dir)
    answers = {}
    for part in dict.fromkeys((*_expected(settings), *told)):
        silent = [
            f"{one.instance} has been silent for {one.age_s:.0f} s"
            for one in lives
            if one.part == part and not one.works
        ]
        running = any(one.part == part for one in lives)
        answers[part] = told.get(part) or "; ".join(silent) or ("ok" if running else "not running")
    return answers


def _ledger(shared: Context) -> str:
    try:
        shared.ledger.ping()
    except SQLAlchemyError:
        return "does not answer"
    return "ok"


def _redis(shared: Context) -> str:
    if shared.job_queue is None:
        return "not configured (CMBNODE_REDIS_URL)"
    try:
        shared.job_queue.depth(ANALYSE)
    except QueueAwayError:
        return "does not answer"
    return "ok"


def _disk(shared: Context) -> str:
    disk = DiskSpace.of(shared.settings.data_dir, shared.settings.archive.free_disk_mb)
    return str(disk) if disk.refuses else "ok"

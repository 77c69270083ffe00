"""The detector's findings by scanner and month, as a page and as CSV. No patient is named."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import AuditAction

from .audit import audit
from .auth import Viewer
from .context import Context, context_of
from .detector_monitoring import DetectorMonth, last_months

YEARS = 5
"""How far back one can look."""

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
Months = Annotated[int, Query(ge=1, le=12 * YEARS)]


@router.get("/detector")
def detector_page(request: Request, shared: Shared, _user: Viewer, months: Months = 13) -> Response:
    """Every scanner, the newest month first."""
    audit(request, AuditAction.DETECTOR, detail=f"{months} months")
    rows = last_months(shared.ledger, shared.settings.zone, months)
    by_scanner: dict[tuple[str, str], list[DetectorMonth]] = {}
    for row in rows:
        by_scanner.setdefault((row.scanner, row.profile), []).append(row)
    view = {"groups": by_scanner, "months": months, "choices": (3, 13, 25, 12 * YEARS)}
    return shared.templates.TemplateResponse(request, "detector.html", view)


@router.get("/detector.csv")
def detector_csv(request: Request, shared: Shared, _user: Viewer, months: Months = 12 * YEARS) -> Response:
    """The same rows for a spreadsheet."""
    audit(request, AuditAction.DETECTOR, detail=f"{months} months, CSV")
    text = io.StringIO()
    rows = [_flat(row) for row in last_months(shared.ledger, shared.settings.zone, months)]
    writer = csv.DictWriter(text, fieldnames=list(_COLUMNS))
    writer.writeheader()
    writer.writerows(rows)
    headers = {"Content-Disposition": 'attachment; filename="detector.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


_COLUMNS = (
    "scanner", "profile", "month", "studies", "findings", "definite", "findings_q1", "findings_median", "findings_q3",
    "no_finding", "outside_training", "snr", "motion", "verified", "accepted", "rejected", "added", "shifts",
)  # fmt: skip


def _flat(row: DetectorMonth) -> dict[str, object]:
    first, middle, third = row.per_study
    values = {**asdict(row), "findings_q1": first, "findings_median": middle, "findings_q3": third}
    values |= {
        "scanner": _inert(row.scanner),
        "profile": _inert(row.profile),
        "shifts": "; ".join(map(str, row.shifts)),
    }
    return {name: values[name] for name in _COLUMNS}


def _inert(text: str) -> str:
    """A text from an image that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

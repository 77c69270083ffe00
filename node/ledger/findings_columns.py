"""What of the findings stands in a list? Columns beside the document, written when the analysis is done."""

from __future__ import annotations

from typing import Any

from pipeline.findings import wording

from .records import Json


def findings_columns(document: Json) -> dict[str, Any]:
    """The columns of `findings` that lists show, filter and sort by.

    Parameters
    ----------
    document : dict
        ``findings.json``. What it does not say stays empty: an older version may have written it.
    """
    counts, summary = document.get("counts") or {}, document.get("summary") or {}
    change, verification = document.get("change") or {}, document.get("verification") or {}
    quality, placement = document.get("quality") or {}, document.get("placement") or {}
    compared = bool(change.get("assessed"))
    limits = wording.limits(
        quality.get("warnings") or (),
        coverage=(quality.get("measures") or {}).get("coverage"),
        phase=bool((document.get("series") or {"phase": "unknown"}).get("phase")),
        located=bool(placement.get("assessed", True)),
    )
    return {
        **{name: int(counts.get(name, 0)) for name in ("total", "definite", "possible")},
        "pattern": str(summary.get("pattern") or ""),
        "new": int(change.get("new", 0)) if compared else None,
        "aria_h": str(change.get("aria_h") or "") if compared else "",
        "verified_by": str(verification.get("observer") or "")[:200],
        "limits": "; ".join(limits),
    }

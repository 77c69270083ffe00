"""What of the findings stands in a list? Columns beside the document, written when the analysis is done."""

from __future__ import annotations

from typing import Any

from node.ledger.records import Json


def headline(document: Json) -> dict[str, Any]:
    """The columns of `findings` that lists show, filter and sort by.

    Parameters
    ----------
    document : dict
        ``findings.json``. What it does not say stays empty: an older version may have written it.
    """
    counts, summary = document.get("counts") or {}, document.get("summary") or {}
    change, verification = document.get("change") or {}, document.get("verification") or {}
    compared = bool(change.get("assessed"))
    return {
        **{name: int(counts.get(name, 0)) for name in ("total", "definite", "possible")},
        "pattern": str(summary.get("pattern") or ""),
        "new": int(change.get("new", 0)) if compared else None,
        "aria_h": str(change.get("aria_h") or "") if compared else "",
        "verified_by": str(verification.get("observer") or "")[:200],
    }

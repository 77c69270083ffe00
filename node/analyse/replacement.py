"""Which result of the study does a job's result replace at its destinations?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.ledger import Job, Ledger
from node.settings.destinations import REJECTION_NOTE, REPORT

if TYPE_CHECKING:
    from pipeline.results import ReplacedResult


def replaced_result(ledger: Ledger, job: Job) -> ReplacedResult | None:
    """The last earlier result of which a destination has anything, and how many there were; ``None`` if none has."""
    from pipeline.results import ReplacedObject, ReplacedResult

    earlier = ledger.predecessors(job.id)
    if not earlier:
        return None
    files = [file for file in ledger.results(earlier[0].id) if file.kind not in (REPORT, REJECTION_NOTE)]
    objects = [ReplacedObject(file.kind, file.sop_class_uid, file.sop_instance_uid) for file in files]
    return ReplacedResult(earlier[0].key, len(earlier), tuple(objects))

"""What would a correction send? A summary for the reader before it is sent; if it was refused, the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.ledger import Job, Ledger
from pipeline.findings import Lesion, RejectedLesion, wording

from . import labels
from .added_microbleeds import AddedRow
from .review import Review
from .study_view import added_view, displayed_result
from .worklist_view import row_of


@dataclass(frozen=True)
class Preview:
    """A summary of a correction and of the result after it."""

    uid: str
    patient_name: str
    patient_id: str
    study: str
    counts: str
    observer: str
    confirmed: str
    rejected: tuple[str, ...]
    restored: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[AddedRow, ...]
    adjustable: bool
    destinations: str
    missing: str
    refusal: str


def preview_of(ledger: Ledger, archive: Path, review: Review, refusal: str = "") -> Preview:
    """Summarise the result that `review` would make; `refusal` says why it was refused.

    Raises
    ------
    InputError
        If there is no such job.
    """
    job = ledger.job(review.job)
    study, shown = ledger.study(job.study_instance_uid), displayed_result(ledger, job)
    lesions, earlier = (shown.findings.lesions, shown.findings.rejected) if shown is not None else ((), ())
    rejected = [one for one in lesions if review.verdicts.get(one.tracking_uid) is False]
    restored = [one for one in earlier if review.verdicts.get(one.tracking_uid)]
    kept = [one for one in lesions if one not in rejected]
    changed = review.changed(shown.findings) if shown is not None else {}
    added = added_view(shown, review, archive).rows if shown is not None else ()
    certainties: list[str] = [changed.get(one.tracking_uid, one.certainty) for one in kept]
    certainties += [changed.get(one.tracking_uid, one.certainty) for one in restored]
    certainties += [one.certainty for one in added]
    accepted = sum(review.verdicts.get(one.tracking_uid, False) for one in kept)
    return Preview(
        uid=study.study_instance_uid,
        patient_name=labels.person_name(study.patient_name),
        patient_id=study.patient_id,
        study=f"{study.study_description or labels.ABSENT}, {labels.dicom_date(study.study_date)}",
        counts=wording.count_line(certainties.count("definite"), certainties.count("possible")),
        observer=labels.person_name(review.observer),
        confirmed=f"{len(kept)} of {len(lesions)}"
        + (f", {accepted} of them accepted individually" if accepted else ""),
        rejected=tuple(_described(one) for one in rejected),
        restored=tuple(_described(one) for one in restored),
        changed=(*_changes(lesions, changed), *_changes(earlier, changed)),
        added=added,
        adjustable=not refusal or _is_current(ledger, job),
        destinations=", ".join(job.destinations) or "none: no destination is set",
        missing=_missing(review),
        refusal=refusal,
    )


def _changes(found: Iterable[Lesion | RejectedLesion], changed: Mapping[str, str]) -> Iterator[str]:
    for one in found:
        if one.tracking_uid in changed:
            yield f"{wording.name(one)}: {one.certainty} → {changed[one.tracking_uid]}"


def _is_current(ledger: Ledger, job: Job) -> bool:
    """Whether the reader can still go back and send this review."""
    row = row_of(ledger, job.study_instance_uid)
    return row is not None and row.job is not None and row.job.id == job.id


def _described(lesion: Lesion | RejectedLesion) -> str:
    return f"{wording.name(lesion)}: {wording.lesion_line(lesion)}"


def _missing(review: Review) -> str:
    """What a verified report must name and the form does not."""
    names = [
        name
        for name, value in (("observer", review.observer), ("organisation", review.organisation))
        if not value.strip()
    ]
    return " and ".join(names)

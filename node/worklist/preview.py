"""What would a correction send? Said in words before it is sent; and why, where it was refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from node.ledger import Ledger
from node.worklist import words
from node.worklist.review import Review
from node.worklist.study_view import shown_of


@dataclass(frozen=True)
class Preview:
    """A correction in words, and what is left of the result after it."""

    uid: str
    patient_name: str
    patient_id: str
    study: str
    total: int
    definite: int
    possible: int
    observer: str
    confirmed: str
    rejected: tuple[str, ...]
    restored: tuple[str, ...]
    added: tuple[str, ...]
    destinations: str
    lacks: str
    refusal: str


def preview_of(ledger: Ledger, review: Review, refusal: str = "") -> Preview:
    """Say what `review` would make of the result that it is about; `refusal` is why it was not taken.

    Raises
    ------
    InputError
        If there is no such job.
    """
    job = ledger.job(review.job)
    study, shown = ledger.study(job.study_instance_uid), shown_of(ledger, job)
    findings = shown.findings if shown is not None else {"lesions": ()}
    lesions, earlier = findings["lesions"], findings.get("rejected", ())
    rejected = [one for one in lesions if review.verdicts.get(one["tracking_uid"]) is False]
    restored = [one for one in earlier if review.verdicts.get(one["tracking_uid"])]
    kept = [one for one in lesions if one not in rejected]
    certainties = [one["certainty"] for one in (*kept, *restored)] + [one.certainty for one in review.added]
    looked_at = sum(review.verdicts.get(one["tracking_uid"], False) for one in kept)
    return Preview(
        uid=study.study_instance_uid,
        patient_name=words.person_name(study.patient_name),
        patient_id=study.patient_id,
        study=f"{study.study_description or words.ABSENT}, {words.dicom_date(study.study_date)}",
        total=len(certainties),
        definite=certainties.count("definite"),
        possible=certainties.count("possible"),
        observer=words.person_name(review.observer),
        confirmed=f"{len(kept)} as they are" + (f", {looked_at} of them accepted one by one" if looked_at else ""),
        rejected=tuple(_name(one) for one in rejected),
        restored=tuple(_name(one) for one in restored),
        added=tuple(
            f"A{n}: {one.certainty}, at {', '.join(f'{v:.0f}' for v in one.centroid_lps_mm)} mm (LPS)"
            for n, one in enumerate(review.added, start=1)
        ),
        destinations=", ".join(job.destinations) or "nowhere: no destination is set",
        lacks=_lacks(review),
        refusal=refusal,
    )


def _name(lesion: dict[str, Any]) -> str:
    place = words.place_words(lesion)
    return f"no. {lesion['id']}, {lesion['certainty']}, {lesion['diameter_mm']:.1f} mm" + (
        "" if place == "not assessed" else f", {place}"
    )


def _lacks(review: Review) -> str:
    """What a verified report must name and does not yet."""
    missing = [
        what
        for what, value in (("observer", review.observer), ("organisation", review.organisation))
        if not value.strip()
    ]
    return " and ".join(missing)

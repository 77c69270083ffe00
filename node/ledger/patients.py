"""When are two studies of the same patient?

The Patient ID must be equal. It is unique only within its issuer (PS3.3 C.7.1.1), and IDs are reused and mistyped, so
the issuer and the birth date must agree as well, where both studies give them.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, false, or_

from node.ledger.models import studies
from node.ledger.records import Study
from node.ledger.rows import Row

_MUST_AGREE = {"issuer_of_patient_id": "issuer of the patient ID", "patient_birth_date": "birth date"}


def same_patient(one: Row) -> ColumnElement[bool]:
    """Condition on `studies`: of the same patient as the study of the row `one`; never true without a Patient ID."""
    if not one["patient_id"]:
        return false()
    agrees = [or_(studies.c[name] == one[name], studies.c[name] == "") for name in _MUST_AGREE if one[name]]
    return and_(studies.c.patient_id == one["patient_id"], *agrees)


def contradiction(one: Study, patient_id: str, issuer: str, birth_date: str) -> str:
    """Say why a study with these values is of another patient than `one`; empty if nothing speaks against it."""
    if not one.patient_id or one.patient_id != patient_id.strip():
        return "another patient ID"
    theirs = {"issuer_of_patient_id": issuer, "patient_birth_date": birth_date}
    for name, words in _MUST_AGREE.items():
        ours = getattr(one, name)
        if ours and theirs[name] and _plain(ours) != _plain(theirs[name]):
            return f"the same patient ID, but another {words}"
    return ""


def _plain(value: str) -> str:
    """Without what does not tell values apart: padding, and the dots of an old date (PS3.5 6.2, VR DA)."""
    text = value.strip()
    bare = text.replace(".", "")
    return bare if bare.isdigit() else text


def earlier_than(one: Row) -> ColumnElement[bool]:
    """Condition on `studies`: made before the study of the row `one`; never true where a date is not known."""
    if not one["study_date"]:
        return false()
    same_day = and_(studies.c.study_date == one["study_date"], studies.c.study_time < one["study_time"])
    return and_(studies.c.study_date != "", or_(studies.c.study_date < one["study_date"], same_day))

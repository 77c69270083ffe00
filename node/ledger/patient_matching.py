"""When are two studies of the same patient?

The Patient ID must be equal. It is unique only within its issuer (PS3.3 C.7.1.1), and IDs are reused and mistyped, so
the issuer and the birth date must agree as well, where both studies give them. Before two results are shown or compared
with each other, name and sex must not contradict each other either.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import ColumnElement, and_, false, or_

from .models import studies
from .records import StudyRecord
from .rows import Row


class PatientIdentifiers(Protocol):
    """What a study says of its patient, in the ledger or in the answer of a PACS; empty is what it does not say."""

    @property
    def patient_id(self) -> str:
        """Patient ID."""

    @property
    def issuer_of_patient_id(self) -> str:
        """Issuer of Patient ID."""

    @property
    def patient_birth_date(self) -> str:
        """Patient's Birth Date (DA)."""


_MUST_AGREE = {"issuer_of_patient_id": "issuer of the patient ID", "patient_birth_date": "birth date"}


def same_patient(one: Row) -> ColumnElement[bool]:
    """Condition on `studies`: of the same patient as the study of the row `one`; never true without a Patient ID."""
    if not one["patient_id"]:
        return false()
    agrees = [or_(studies.c[name] == one[name], studies.c[name] == "") for name in _MUST_AGREE if one[name]]
    return and_(studies.c.patient_id == one["patient_id"], *agrees)


def identifier_contradiction(one: PatientIdentifiers, other: PatientIdentifiers) -> str:
    """Say why `other` is of another patient than `one` by ID, issuer and birth date; empty if it may be the same."""
    if not one.patient_id or one.patient_id != other.patient_id.strip():
        return "another patient ID"
    for name, words in _MUST_AGREE.items():
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours and theirs and _plain(ours) != _plain(theirs):
            return f"the same patient ID, but another {words}"
    return ""


def contradiction(one: StudyRecord, other: StudyRecord) -> str:
    """Say why `other` is of another patient than `one` by all that is known; empty if nothing speaks against it."""
    if why := identifier_contradiction(one, other):
        return why
    ours, theirs = _name_parts(one.patient_name), _name_parts(other.patient_name)
    if ours and theirs and not ours & theirs:
        return "the same patient ID, but another name"
    if {one.patient_sex, other.patient_sex} == {"M", "F"}:
        return "the same patient ID, but another sex"
    return ""


def is_confirmed(one: StudyRecord, other: StudyRecord) -> bool:
    """Whether more than the patient ID says that two studies are of the same patient: birth date, or a name."""
    same_day = bool(one.patient_birth_date) and _plain(one.patient_birth_date) == _plain(other.patient_birth_date)
    return same_day or bool(_name_parts(one.patient_name) & _name_parts(other.patient_name))


def _name_parts(name: str) -> set[str]:
    """Family and given names in every script (PS3.5 6.2.1): people marry, so one of them in common is enough."""
    parts = (part for group in name.split("=") for part in group.split("^")[:2])
    return {" ".join(part.casefold().split()) for part in parts} - {""}


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

"""What is a reader's review of a result? The form of the study page, and the correction it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from starlette.datastructures import FormData

from node.ledger import AddedMicrobleed, CertaintyVerdict, Correction, LesionVerdict
from node.ledger.correction import MOST_ADDED
from pipeline.errors import InputError
from pipeline.findings import Findings

from .viewer import VIEWS, Point, ViewerSlices

Certainty = Literal["definite", "possible"]
_VERDICT = "verdict-"
_CERTAINTY = "certainty-"


@dataclass(frozen=True)
class Review:
    """The state of the form. It is complete: the page can be rendered again from it without losing anything.

    Parameters
    ----------
    job : int
        The result under review.
    verdicts : mapping of str to bool
        Accepted or rejected, by tracking UID; microbleeds without a verdict are absent.
    certainties : mapping of str to {'definite', 'possible'}
        How certain the reader is of each microbleed, by tracking UID.
    added : tuple of AddedMicrobleed
        Missed microbleeds.
    position, view : int, str
        The slice in the viewer, and its view.
    """

    job: int
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    added: tuple[AddedMicrobleed, ...] = ()
    comment: str = ""
    observer: str = ""
    organisation: str = ""
    position: int = 0
    view: str = "swi"
    certainties: Mapping[str, Certainty] = field(default_factory=dict)

    def changed(self, findings: Findings) -> Mapping[str, Certainty]:
        """The certainties that differ from those of the result; what is rejected has none."""
        listed = {one.tracking_uid for one in findings.lesions}
        known = {one.tracking_uid: one.certainty for one in findings.lesions}
        known |= {one.tracking_uid: one.certainty for one in findings.rejected}
        return {
            uid: certainty
            for uid, certainty in self.certainties.items()
            if known.get(uid, certainty) != certainty and self.verdicts.get(uid, uid in listed)
        }

    def correction(self, findings: Findings) -> Correction:
        """The correction of `findings` that this review becomes."""
        return Correction(
            observer=self.observer.strip(),
            organisation=self.organisation.strip(),
            verdicts=tuple(LesionVerdict(uid, accepted) for uid, accepted in self.verdicts.items()),
            added=self.added,
            comment=self.comment.strip(),
            certainties=tuple(CertaintyVerdict(uid, one) for uid, one in self.changed(findings).items()),
        )


def read_review(form: FormData) -> Review:
    """Read the form from a browser.

    Raises
    ------
    InputError
        If a field does not hold what a page of this node writes into it.
    """
    verdicts = {
        name.removeprefix(_VERDICT): value == "accept"
        for name, value in form.items()
        if name.startswith(_VERDICT) and value in ("accept", "reject")
    }
    certain = {
        name.removeprefix(_CERTAINTY): _certainty(str(value))
        for name, value in form.items()
        if name.startswith(_CERTAINTY)
    }
    places, certainties = form.getlist("added"), form.getlist("certainty")
    if len(places) != len(certainties) or len(places) > MOST_ADDED:
        raise InputError("the added microbleeds cannot be read", do="reload the page and try again")
    return Review(
        job=_integer(form, "job"),
        verdicts=verdicts,
        certainties=certain,
        added=tuple(_read_microbleed(str(p), str(c)) for p, c in zip(places, certainties, strict=True)),
        comment=_text(form, "comment"),
        observer=_text(form, "observer"),
        organisation=_text(form, "organisation"),
        position=_integer(form, "position"),
        view=view if (view := _text(form, "view")) in VIEWS else "swi",
    )


def apply_action(review: Review, form: FormData, slices: ViewerSlices | None) -> Review:
    """Apply the button that was pressed: show another slice or view, remove a mark. A new mark is for :func:`marked`.

    Raises
    ------
    InputError
        If a number cannot be read, or a place lies outside the image.
    """
    if "remove" in form:
        n = _integer(form, "remove")
        return replace(review, added=(*review.added[: max(n, 0)], *review.added[n + 1 :]))
    if slices is None:
        return review
    count = len(slices.order)
    review = replace(review, position=min(max(review.position, 0), count - 1))
    if (wanted := _text(form, "show")) in slices.views:
        return replace(review, view=wanted)
    go, _, number = _text(form, "go").partition(":")
    if go == "number":
        wanted_number = _integer({"number": number} if number else form, "number")
        return replace(review, position=slices.position_of_number(wanted_number))
    if go:
        return replace(review, position=min(max(_integer(form, "go"), 0), count - 1))
    return review


def marked(review: Review, form: FormData, slices: ViewerSlices | None) -> Point | None:
    """The place that the reader marks: in the viewer, by a click on the picture, or by row and column.

    Raises
    ------
    InputError
        If it cannot be read, or lies outside the image.
    """
    if text := _text(form, "confirm") or _text(form, "place"):
        return read_place(text)
    if slices is None:
        return None
    if "place.x" in form and (_text(form, "place.x"), _text(form, "place.y")) != ("0", "0"):  # 0, 0: by keyboard
        return slices.place(review.position, _number(form, "place.x") + 0.5, _number(form, "place.y") + 0.5)
    if "mark" in form:
        return slices.voxel(review.position, _number(form, "row"), _number(form, "column"))
    return None


def _read_microbleed(place: str, certainty: str) -> AddedMicrobleed:
    return AddedMicrobleed(read_place(place), _certainty(certainty))


def read_place(text: str) -> Point:
    """A place in the patient (LPS, mm) as the page writes it: three numbers.

    Raises
    ------
    InputError
        If it is something else.
    """
    try:
        x, y, z = (float(value) for value in text.split())
    except ValueError:
        raise InputError("the place of an added microbleed cannot be read", do="mark it again") from None
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError("the place of an added microbleed cannot be read", do="mark it again")
    return x, y, z


def _certainty(text: str) -> Certainty:
    if text not in get_args(Certainty):
        raise InputError("the certainty of a microbleed cannot be read", do="reload the page and try again")
    return "possible" if text == "possible" else "definite"


def _text(form: Mapping[str, Any], name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _number(form: Mapping[str, Any], name: str) -> float:
    try:
        value = float(_text(form, name))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} is not a number", do="enter a number")
    return value


def _integer(form: Mapping[str, Any], name: str) -> int:
    value = _number(form, name)
    if value != int(value) or abs(value) > 1_000_000_000:
        raise InputError(f"{name} is not a whole number", do="enter a whole number")
    return int(value)

"""What has a reader said of a result so far? The form of the study page, read from a browser and made a correction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from starlette.datastructures import FormData

from node.ledger import AddedBleed, Correction, Verdict
from node.ledger.correction import MOST_ADDED
from node.worklist.viewer import VIEWS, Point, Slices
from pipeline.errors import InputError

Certainty = Literal["definite", "possible"]
_VERDICT = "verdict-"


@dataclass(frozen=True)
class Review:
    """The state of the form; everything is in it, so that a page can be made again without losing anything.

    Parameters
    ----------
    job : int
        The result that the reader looks at.
    verdicts : mapping of str to bool
        Accepted or rejected, by tracking UID; the others are not judged one by one.
    added : tuple of AddedBleed
        Bleeds that were missed.
    position, view : int, str
        The slice that is shown, and what of it.
    """

    job: int
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    added: tuple[AddedBleed, ...] = ()
    comment: str = ""
    observer: str = ""
    organisation: str = ""
    position: int = 0
    view: str = "swi"

    def correction(self) -> Correction:
        """What is sent."""
        return Correction(
            observer=self.observer.strip(),
            organisation=self.organisation.strip(),
            verdicts=tuple(Verdict(uid, accepted) for uid, accepted in self.verdicts.items()),
            added=self.added,
            comment=self.comment.strip(),
        )


def read_review(form: FormData) -> Review:
    """Read the form as a browser sends it.

    Raises
    ------
    InputError
        If a field does not hold what a page of this node puts there.
    """
    verdicts = {
        name.removeprefix(_VERDICT): value == "accept"
        for name, value in form.items()
        if name.startswith(_VERDICT) and value in ("accept", "reject")
    }
    places, certainties = form.getlist("added"), form.getlist("certainty")
    if len(places) != len(certainties) or len(places) > MOST_ADDED:
        raise InputError("the added microbleeds cannot be read", do="reload the page and try again")
    return Review(
        job=_whole(form, "job"),
        verdicts=verdicts,
        added=tuple(_added(str(p), str(c)) for p, c in zip(places, certainties, strict=True)),
        comment=_text(form, "comment"),
        observer=_text(form, "observer"),
        organisation=_text(form, "organisation"),
        position=_whole(form, "at"),
        view=shown if (shown := _text(form, "shown")) in VIEWS else "swi",
    )


def act(review: Review, form: FormData, slices: Slices | None) -> Review:
    """Do what the button that was pressed says: show another slice or view, mark a place, take a mark back.

    Raises
    ------
    InputError
        If the place is none, or the slices are gone.
    """
    if slices is None:
        return review
    count = len(slices.order)
    review = replace(review, position=min(max(review.position, 0), count - 1))
    if (wanted := _text(form, "show")) in slices.views:
        return replace(review, view=wanted)
    if "remove" in form:
        n = _whole(form, "remove")
        return replace(review, added=(*review.added[:n], *review.added[n + 1 :]))
    if (place := _marked(review, form, slices)) is not None:
        return replace(review, added=(*review.added, AddedBleed(place)))
    go, _, number = _text(form, "go").partition(":")
    if go == "number":
        wanted_number = _whole({"number": number} if number else form, "number")
        return replace(review, position=slices.position_of_number(wanted_number))
    if go:
        return replace(review, position=min(max(_whole(form, "go"), 0), count - 1))
    return review


def _marked(review: Review, form: FormData, slices: Slices) -> Point | None:
    """The place that was clicked on the picture, or given as row and column."""
    if "place.x" in form and (_text(form, "place.x"), _text(form, "place.y")) != ("0", "0"):  # 0, 0: by keyboard
        return slices.place(review.position, _number(form, "place.x") + 0.5, _number(form, "place.y") + 0.5)
    if "mark" in form:
        return slices.voxel(review.position, _number(form, "row"), _number(form, "column"))
    return None


def _added(place: str, certainty: str) -> AddedBleed:
    try:
        x, y, z = (float(value) for value in place.split())
    except ValueError:
        raise InputError("the place of an added microbleed cannot be read", do="mark it again") from None
    if certainty not in get_args(Certainty) or not all(map(math.isfinite, (x, y, z))):
        raise InputError("an added microbleed cannot be read", do="mark it again")
    return AddedBleed((x, y, z), "possible" if certainty == "possible" else "definite")


def _text(form: Mapping[str, Any], name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _number(form: Mapping[str, Any], name: str) -> float:
    try:
        value = float(_text(form, name))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} is not a number", do="give a number")
    return value


def _whole(form: Mapping[str, Any], name: str) -> int:
    value = _number(form, name)
    if value != int(value) or abs(value) > 1_000_000_000:
        raise InputError(f"{name} is not a whole number", do="give a whole number")
    return int(value)

"""What does the page say of microbleeds that a reader adds? Each is examined where it is marked, before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import dist
from pathlib import Path
from urllib.parse import urlencode

from node.ledger import AddedMicrobleed, Job
from pipeline.errors import InputError, ProfileError
from pipeline.findings import Findings, wording
from pipeline.pictures import VOLUMES
from pipeline.pictures.marking import PlacePreview, StoredVolumes
from pipeline.profile import load_profile

from .review import Review
from .viewer import Point
from .volumes import VolumeGrid

ADDED_MM = 3.0
"""Diameter of the ring around an added microbleed that could not be examined."""


@dataclass(frozen=True)
class AddedRow:
    """A microbleed that the reader adds, formatted. `at` is its voxel; `possible_only`: nothing dark was measured."""

    label: str
    place: str
    certainty: str
    location: str
    size: str
    slice: str
    at: str
    diameter: str
    thumbnail: str
    possible_only: bool


@dataclass(frozen=True)
class AddedView:
    """The microbleeds that the reader adds, a place that waits for confirmation, and why a place was refused."""

    rows: tuple[AddedRow, ...] = ()
    confirm: AddedRow | None = None
    refusal: str = ""


class PlaceExaminer:
    """Examines places on the images of a result. Without its volumes a place is taken as it is.

    Parameters
    ----------
    archive : Path
        The folder that has the outbox.
    job : Job
        The job that made the result.
    base : str
        Address of the result's pictures.
    """

    def __init__(self, archive: Path, job: Job, base: str, grid: VolumeGrid | None) -> None:
        self._base, self._grid = base, grid
        try:
            self._volumes: StoredVolumes | None = StoredVolumes(archive / "outbox" / str(job.id) / VOLUMES)
            self._parameters = load_profile(job.profile).measure
        except (InputError, ProfileError):
            self._volumes = None

    def preview(self, place: Point) -> PlacePreview | None:
        """What lies there; ``None`` if it cannot be examined."""
        return None if self._volumes is None else self._volumes.preview(place, self._parameters)

    def row(self, label: str, added: AddedMicrobleed) -> AddedRow:
        """Describe an added microbleed."""
        place, found = added.centroid_lps_mm, self.preview(added.centroid_lps_mm)
        shown = found.centroid_lps_mm if found else place
        written = " ".join(map(str, place))
        return AddedRow(
            label=label,
            place=written,
            certainty="possible" if found and not found.measured else added.certainty,
            location=wording.place(found.where) if found else "",
            size=(f"{found.diameter_mm:.1f} mm" if found.measured else "size not measured") if found else "",
            slice=str(self._grid.number_of(shown)) if self._grid else "",
            at=self._grid.at(shown) if self._grid else "",
            diameter=f"{found.diameter_mm if found else ADDED_MM:.1f}",
            thumbnail=f"{self._base}/place.jpg?{urlencode({'at': written})}" if found else "",
            possible_only=found is not None and not found.measured,
        )

    def rows(self, review: Review) -> tuple[AddedRow, ...]:
        """Describe all that were added."""
        return tuple(self.row(f"A{n}", added) for n, added in enumerate(review.added, start=1))


def mark(
    review: Review, place: Point, findings: Findings, examiner: PlaceExaminer, *, confirmed: bool = False
) -> tuple[Review, AddedRow | None]:
    """Add the microbleed at a place, or describe it if that needs the reader's confirmation.

    Raises
    ------
    InputError
        If it is marked already, or lies outside the brain.
    """
    found = examiner.preview(place)
    places = [place] if found is None else [place, found.centroid_lps_mm]
    for name, centre, diameter in _marked(review, findings, examiner):
        if any(dist(one, centre) <= diameter / 2 for one in places):
            raise InputError(f"{name} is already marked there")
    if found is not None and not found.in_brain:
        raise InputError("this place lies outside the brain", do="mark a place in the brain")
    added = AddedMicrobleed(place, "definite" if found is None or found.measured else "possible")
    if found is not None and not found.measured and not confirmed:
        return review, examiner.row(f"A{len(review.added) + 1}", added)
    return replace(review, added=(*review.added, added)), None


def _marked(review: Review, findings: Findings, examiner: PlaceExaminer) -> Iterator[tuple[str, Point, float]]:
    """What is there already, unless the reader has rejected it: name, centre and diameter."""
    for lesion in findings.lesions:
        if review.verdicts.get(lesion.tracking_uid, True):
            yield wording.name(lesion), lesion.centroid_lps_mm, lesion.diameter_mm
    for rejected in findings.rejected:
        if review.verdicts.get(rejected.tracking_uid):
            yield wording.name(rejected), rejected.centroid_lps_mm, rejected.diameter_mm
    for n, added in enumerate(review.added, start=1):
        found = examiner.preview(added.centroid_lps_mm)
        centre = found.centroid_lps_mm if found else added.centroid_lps_mm
        yield f"A{n}", centre, found.diameter_mm if found else ADDED_MM

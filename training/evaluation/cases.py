"""What is measured? Studies with a truth, and the answers that a profile gave to them.

A cohort is any folder with a ``truth.json`` in the folder of every study, as ``cmbtrain simulate`` writes them; the
images lie beside it or in its folder ``dicom``. In any other labelled data set
(:mod:`training.datasets`) the marked microbleeds are the truth, and the images are taken as training reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from training.datasets.layouts import open_dataset
from training.datasets.mark_kinds import BLEED
from training.datasets.record import Mark, Record

Point = tuple[float, float, float]
TRUTH_FILE = "truth.json"
NULL = "null"
END_ON_VEIN = "end-on vein"


@dataclass(frozen=True)
class TruthObject:
    """A true microbleed, or something that looks like one.

    Parameters
    ----------
    centre_lps_mm : tuple of float
        Patient coordinates.
    kind : str
        ``bleed``, or what the mimic is.
    visible : bool
        Whether a perfect reader could see it; what cannot be seen is neither missed nor false.
    diameter_mm : float or None
        Apparent diameter, blooming included.
    region, placement : str
        Lobar, deep or infratentorial; how a simulated site was drawn. Empty when unknown.
    """

    centre_lps_mm: Point
    kind: str = "bleed"
    visible: bool = True
    diameter_mm: float | None = None
    region: str = ""
    placement: str = ""


@dataclass(frozen=True)
class CaseTruth:
    """What is in one study, and what `visible` means there; `veins` are known places where one is seen end-on."""

    bleeds: tuple[TruthObject, ...]
    mimics: tuple[TruthObject, ...] = ()
    rule: str = "every microbleed of the reference counts"
    veins: tuple[TruthObject, ...] = ()

    @property
    def visible(self) -> tuple[TruthObject, ...]:
        """The microbleeds to be found."""
        return tuple(bleed for bleed in self.bleeds if bleed.visible)


@dataclass(frozen=True)
class Case:
    """A study to measure on.

    Parameters
    ----------
    name : str
        Of the study, unique in its cohort.
    subject, anatomy : str
        Whose head; what is drawn again by the bootstrap, and what training and test may not share.
    images : Path or None
        Folder of its DICOM files; None where `record` has them.
    truth : CaseTruth
        What is in it.
    simulated : bool
        Whether nobody was ever scanned.
    study_instance_uid : str
        Which study of the folder, if there are several.
    split : str
        ``train``, ``validation`` or ``test``; empty where the truth does not say.
    record : Record or None
        The study in a labelled data set.
    """

    name: str
    subject: str
    anatomy: str
    images: Path | None
    truth: CaseTruth
    simulated: bool = False
    study_instance_uid: str = ""
    split: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class ReportedMark:
    """A place that was reported or scored."""

    centre_lps_mm: Point
    probability: float


@dataclass(frozen=True)
class CaseFindings:
    """What of a ``findings.json`` is measured: `lesions` are reported, `candidates` all that were scored."""

    lesions: tuple[ReportedMark, ...]
    candidates: tuple[ReportedMark, ...]
    warnings: tuple[str, ...] = ()
    timing_s: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> CaseFindings:
        """Read it from the document of schema cmb-findings/1."""
        return cls(
            tuple(map(_mark, document["lesions"])),
            tuple(map(_mark, document["candidates"])),
            tuple(document["quality"]["warnings"]),
            dict(document["timing_s"]),
        )


def _mark(entry: Mapping[str, Any]) -> ReportedMark:
    return ReportedMark(_point(entry["centroid_lps_mm"]), float(entry["probability"]))


def _point(values: Sequence[float]) -> Point:
    x, y, z = map(float, values)
    return x, y, z


def read_cohort(folder: Path, limit: int = 0, split: str = "", kind: str | None = None) -> list[Case]:
    """Find the studies of a cohort, by name.

    Parameters
    ----------
    folder : Path
        A cohort, or a labelled data set.
    limit : int
        Number of studies, in order of their names; 0 reads all.
    split : str
        Only those of this split, and those that name none; all if empty.
    kind : str, optional
        Of data set, a name in :data:`training.datasets.layouts.KINDS`; by default what the layout says.

    Raises
    ------
    InputError
        If there is none, or a truth file is not one, or a study of a data set cannot be read.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder))
    files = sorted(path for path in folder.rglob(TRUTH_FILE) if not _hidden(path.relative_to(folder)))
    told = files and kind in (None, "simulated")
    found: Sequence[Case | Record] = [read_case(path) for path in files] if told else open_dataset(folder, kind)
    chosen = [one for one in found if not split or one.split in (None, "", split)]
    if not chosen:
        others = ", ".join(sorted({one.split or "" for one in found}))
        raise InputError(f"no study of split {split}", where=str(folder), do=f"its splits are: {others}")
    cases = [one if isinstance(one, Case) else labelled_case(one) for one in chosen[: limit or None]]
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"several studies are called {twice[0]}", where=str(folder), do="evaluate one cohort at a time"
        )
    return cases


def labelled_case(record: Record) -> Case:
    """Read the marks of a labelled study; what is marked and no microbleed counts as a mimic."""
    marks = record.read().marks
    return Case(
        name=record.name,
        subject=record.subject,
        anatomy=record.anatomy,
        images=None,
        truth=CaseTruth(
            tuple(_labelled(mark) for mark in marks if mark.kind == BLEED),
            tuple(_labelled(mark) for mark in marks if mark.kind != BLEED),
        ),
        simulated=record.simulated,
        split=record.split or "",
        record=record,
    )


def _labelled(mark: Mark) -> TruthObject:
    return TruthObject(mark.centre_lps_mm, mark.kind, mark.visible, mark.diameter_mm)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_case(path: Path) -> Case:
    """Read one truth file.

    Raises
    ------
    InputError
        If it is not one; the message names what is wrong.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        bleeds = tuple(_thing(entry, "bleed") for entry in document["lesions"])
        mimics = tuple(_thing(entry, "mimic") for entry in document.get("mimics", ()))
        veins = tuple(_thing({**entry, "kind": END_ON_VEIN}, "") for entry in document.get("end_on_veins", ()))
        veins += tuple(_thing(entry, "vein") for entry in document.get("veins", ()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"is not a truth file: {error}", where=str(path)) from error
    except KeyError as error:
        raise InputError(f"is not a truth file: {error} is missing", where=str(path)) from error
    folder = path.parent
    name = str(document.get("study", folder.name))
    anatomy = str(document.get("anatomy", name))
    head = document.get("seeds", {}).get("head")
    return Case(
        name=name,
        subject=str(document.get("subject", name if head is None else f"{anatomy}/{head}")),
        anatomy=anatomy,
        images=folder / "dicom" if (folder / "dicom").is_dir() else folder,
        truth=CaseTruth(bleeds, mimics, _rule(document.get("visible_means")), veins),
        simulated="simulated" in f"{document.get('schema', '')} {document.get('note', '')}".lower(),
        study_instance_uid=str(document.get("study_instance_uid", "")),
        split=str(document.get("split") or ""),
    )


def _thing(entry: Mapping[str, Any], kind: str) -> TruthObject:
    diameter = entry.get("apparent_diameter_mm")
    return TruthObject(
        centre_lps_mm=_point(entry["centre_lps_mm"]),
        kind=str(entry.get("kind", kind)),
        visible=bool(entry.get("visible", True)),
        diameter_mm=None if diameter is None else float(diameter),
        region=str(entry.get("region") or ""),
        placement=str(entry.get("placement") or ""),
    )


def _rule(means: Mapping[str, float] | None) -> str:
    if not means:
        return "a microbleed counts when its truth file calls it visible"
    limits = " and ".join(f"{name} ≥ {limit:g}" for name, limit in means.items())
    return f"a microbleed counts when it is visible in the noise-free image: {limits}"

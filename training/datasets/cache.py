"""How does a data set become small and fast? One compressed ``.npz`` a study: cropped to the brain, 8 bits a value.

Grey values in steps of 1 % of the brain's median and phase in steps of π/127 are far below the noise. Reading it needs
numpy alone, so a cache can be carried to a machine without DICOM packages, in parts of a bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CmbError, InputError
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.networks.inputs import BRIGHTEST, Inputs, make_inputs
from training.folder_lock import alone_in

from .mark_kinds import BLEED
from .record import LabelledStudy, Mark, Record

SCHEMA = "cmb-training-study/1"
GREY_STEP = BRIGHTEST / 255
PHASE_STEP = np.pi / 127
MEBIBYTE = 1 << 20

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CachedStudy:
    """A study of the cache, held in memory as it is stored.

    Parameters
    ----------
    name, subject, anatomy, split, mimics_known
        See :class:`training.datasets.record.Record`.
    marks : tuple of Mark
        What is in it.
    swi, magnitude : ndarray of uint8, shape (slices, rows, columns), or None
        In steps of 3/255 of the brain's median.
    phase : ndarray of int8 or None
        In steps of π/127.
    brain : ndarray of bool
        The brain mask.
    affine : ndarray, shape (4, 4)
        Of the crop, to LPS millimetres.
    """

    name: str
    subject: str
    anatomy: str
    split: str | None
    mimics_known: bool
    marks: tuple[Mark, ...]
    swi: Bytes
    phase: NDArray[np.int8] | None
    magnitude: Bytes | None
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @property
    def geometry(self) -> Geometry:
        """The grid of the crop."""
        k, j, i = self.swi.shape
        return Geometry((k, j, i), self.affine)

    def acquisition(self) -> Acquisition:
        """The study as the pipeline takes it; grey values are in medians of the brain."""
        geometry = self.geometry
        return Acquisition(
            Volume(_grey(self.swi), geometry, ()),
            None if self.phase is None else Volume(self.phase * np.float32(PHASE_STEP), geometry, ()),
            None if self.magnitude is None else Volume(_grey(self.magnitude), geometry, ()),
        )

    def points(self, marks: Iterable[Mark]) -> NDArray[np.float64]:
        """Voxel coordinates ``(n, 3)``, as (i, j, k), of marks."""
        return self.geometry.to_ijk(np.array([m.centre_lps_mm for m in marks], np.float64).reshape(-1, 3))

    def visible_bleeds(self) -> tuple[Mark, ...]:
        """The microbleeds that a reader can see."""
        return tuple(m for m in self.marks if m.kind == BLEED and m.visible)

    def reference(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Patient coordinates ``(n, 3)`` of all microbleeds, and which of them a reader can see."""
        bleeds = [m for m in self.marks if m.kind == BLEED]
        centres = np.array([m.centre_lps_mm for m in bleeds], np.float64).reshape(-1, 3)
        return centres, np.array([m.visible for m in bleeds], bool)


def _grey(values: Bytes) -> NDArray[np.float32]:
    return values * np.float32(GREY_STEP)


def cache_study(
    record: Record, labelled: LabelledStudy, brain: NDArray[np.bool_], *, coarse: int = 1, magnitude: bool = True
) -> CachedStudy:
    """Crop, normalise and quantise a study; see :func:`make_cache`."""
    inputs = make_inputs(labelled.acquisition, brain)
    grey = inputs.magnitude if magnitude else None
    affine = labelled.acquisition.swi.geometry.affine.copy()
    affine[:3, 3] = labelled.acquisition.swi.geometry.to_lps(inputs.origin)
    return CachedStudy(
        record.name, record.subject, record.anatomy, record.split, record.mimics_known, labelled.marks,
        _quantise(inputs.swi, coarse), _phase(inputs, coarse), None if grey is None else _quantise(grey, coarse),
        inputs.brain, affine,
    )  # fmt: skip


def _quantise(values: NDArray[np.float32], coarse: int) -> Bytes:
    return np.minimum(np.rint(values / (GREY_STEP * coarse)) * coarse, 255).astype(np.uint8)


def _phase(inputs: Inputs, coarse: int) -> NDArray[np.int8] | None:
    if inputs.phase is None:
        return None
    wrapped = np.angle(np.exp(1j * inputs.phase))
    return np.clip(np.rint(wrapped / (PHASE_STEP * coarse)) * coarse, -127, 127).astype(np.int8)


def write_study(study: CachedStudy, path: Path) -> None:
    """Write a study, whole or not at all."""
    about = {
        "schema": SCHEMA,
        **{name: getattr(study, name) for name in ("name", "subject", "anatomy", "split", "mimics_known")},
        "marks": [asdict(m) for m in study.marks],
        "shape": study.swi.shape,
    }
    arrays: dict[str, NDArray[np.generic]] = {"swi": study.swi, "brain": np.packbits(study.brain)}
    arrays |= {"affine": study.affine, "about": np.array(json.dumps(about))}
    arrays |= {n: a for n in ("phase", "magnitude") if (a := getattr(study, n)) is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
    partial.replace(path)


def read_study(path: Path) -> CachedStudy:
    """Read a study.

    Raises
    ------
    InputError
        When the file is not a cached study, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["schema"] != SCHEMA:
                raise InputError(f"has schema {about['schema']}, not {SCHEMA}", where=str(path), do="make it again")
            shape = tuple(about["shape"])
            brain = np.unpackbits(stored["brain"], count=int(np.prod(shape))).reshape(shape).astype(bool)
            marks = tuple(Mark(**{**m, "centre_lps_mm": tuple(m["centre_lps_mm"])}) for m in about["marks"])
            swi, phase, magnitude = (stored.get(name) for name in ("swi", "phase", "magnitude"))
            return CachedStudy(
                about["name"], about["subject"], about["anatomy"], about["split"], about["mimics_known"], marks,
                swi, phase, magnitude, brain, stored["affine"],
            )  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"is not a cached study ({error})", where=str(path)) from error


def find_cached(folders: Sequence[Path]) -> list[Path]:
    """Every study file below some folders, by name; a part that is elsewhere is simply another folder."""
    found = {p.name: p for folder in folders for p in sorted(folder.rglob("*.npz")) if not p.name.startswith(".")}
    if not found:
        where = ", ".join(map(str, folders))
        raise InputError("holds no cached study", where=where, do="make one with `cmbtrain cache DATASET --out DIR`")
    return [found[name] for name in sorted(found)]


def read_cache(folders: Sequence[Path]) -> list[CachedStudy]:
    """Read all studies below some folders."""
    return [read_study(path) for path in find_cached(folders)]


def make_cache(
    records: Sequence[Record],
    out: Path,
    *,
    part_mb: int = 56,
    limit: int = 0,
    coarse: int = 1,
    magnitude: bool = True,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Write a data set as a cache; studies that are there already are not made again.

    Parameters
    ----------
    records : sequence of Record
        The studies.
    out : Path
        Its folder; parts ``part-000``, … are made in it.
    part_mb : int
        Largest size of a part, MiB.
    limit : int
        Number of studies; 0 caches all.
    coarse : int
        Keep every Nth intensity step: 4 halves the size, and its steps are still below the noise.
    magnitude : bool
        Whether it is kept.
    say : callable
        Told of each study.

    Raises
    ------
    InputError
        If another command writes to the folder.
    """
    from pipeline.brain import extract_brain

    with alone_in(out):
        there = {p.stem: p for p in out.rglob("*.npz")}
        made = []
        chosen = records[:limit] if limit else records
        for n, record in enumerate(chosen, start=1):
            path = there.get(record.name)
            if path is None:
                try:
                    labelled = record.read()
                    head = labelled.acquisition.magnitude or labelled.acquisition.swi
                    brain = labelled.brain if labelled.brain is not None else extract_brain(head)
                except CmbError as error:
                    say(f"{n}/{len(chosen)} {record.name}: left out: {error}")
                    continue
                study = cache_study(record, labelled, brain, coarse=coarse, magnitude=magnitude)
                path = out / f".{record.name}.npz"
                write_study(study, path)
                path = path.replace(_part(out, path.stat().st_size, part_mb) / f"{record.name}.npz")
            made.append(path)
            say(f"{n}/{len(chosen)} {record.name}: {path.stat().st_size / MEBIBYTE:.1f} MiB in {path.parent.name}")
    return made


def _part(out: Path, size: int, part_mb: int) -> Path:
    """The last part while there is room in it, else a new one."""
    parts = sorted(p for p in out.glob("part-*") if p.is_dir())
    last = parts[-1] if parts else out / "part-000"
    held = sum(p.stat().st_size for p in last.glob("*.npz")) if last.is_dir() else 0
    if held and held + size > part_mb * MEBIBYTE:
        last = out / f"part-{len(parts):03d}"
    last.mkdir(parents=True, exist_ok=True)
    return last

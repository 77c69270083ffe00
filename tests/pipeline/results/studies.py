"""A simulated head with microbleeds, written as a DICOM series, and what a detector would say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from pipeline.findings import (
    Certainty,
    ChangeOverTime,
    Findings,
    ImageQuality,
    Lesion,
    LesionOrigin,
    Placement,
    PriorLesion,
    RejectedLesion,
    ScoredCandidate,
    SeriesUsed,
    Trend,
    Verification,
)
from pipeline.geometry import Acquisition, FrameReference, Geometry, Volume
from pipeline.uids import derive_uid
from tests import dicom_factory

KEY = "0123456789abcdef" * 4
CREATED = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
OBLIQUE = np.array([[1.0, 0.0, 0.0], [0.0, 0.96, -0.28], [0.0, 0.28, 0.96]])


@dataclass(frozen=True, eq=False)
class Detection:
    """The fields of `pipeline.detect.Detection`, without what it takes to import it."""

    findings: Findings
    labels: NDArray[np.uint16]
    acquisition: Acquisition
    brain: NDArray[np.bool_] | None = None
    alignment: None = None
    prior: None = None


def simulate(
    folder: Path,
    lesions: int = 5,
    *,
    kind: str = "classic",
    shape: tuple[int, int, int] = (24, 112, 96),
    phase: bool = True,
    patient: dicom_factory.Patient | None = None,
    tags: Mapping[str, Any] | None = None,
    regions: bool = False,
    warnings: tuple[str, ...] = (),
    weights: Mapping[str, str] | None = None,
) -> Detection:
    """Write a head of `shape` with `lesions` microbleeds below `folder`, and state them as a detection.

    `kind` is ``classic``, ``enhanced`` (frames in reverse order) or ``interleaved`` (enhanced, SWI and phase in one
    object).
    """
    patient = patient or dicom_factory.Patient()
    matrix = dicom_factory.affine((0.9, 0.9, 2.0) if shape[1] < 256 else (0.5, 0.5, 2.0), (-40, -50, -20), OBLIQUE)
    image, labels = head(shape, lesions, matrix)
    stored = image.astype(np.uint16)
    angle = np.where(labels > 0, 1.5, 0.0)
    volumes = _write(folder, kind, stored, angle, matrix, patient, tags or {})
    uid = patient.frame_uid if patient.frame_of_reference else ""
    geometry = Geometry(shape, matrix, uid)
    swi = Volume(image.astype(np.float32), geometry, volumes[0][1], volumes[0][0])
    phases = Volume(angle.astype(np.float32), geometry, volumes[1][1], volumes[1][0]) if phase else None
    found = tuple(_lesion(n, labels, geometry, swi, regions) for n in range(1, lesions + 1))
    findings = Findings(
        profile="frst",
        weights=dict(weights or {}),
        software="0.1.0",
        study_instance_uid=patient.study_uid,
        series=SeriesUsed(swi.series_instance_uid, phases.series_instance_uid if phases else None),
        lesions=found,
        candidates=tuple(ScoredCandidate(lesion.centroid_lps_mm, lesion.probability) for lesion in found),
        warnings=warnings,
    )
    return Detection(findings, labels, Acquisition(swi, phases, warnings=warnings))


def follow_up(detection: Detection) -> Detection:
    """State `detection` as a follow-up on good images: every third bleed new, one gone, the last undecided."""
    lesions = detection.findings.lesions
    trends = [None if x.id == len(lesions) else Trend.NEW if x.id % 3 == 0 else Trend.STABLE for x in lesions]
    gone = PriorLesion("2.25.71", (3.0, 2.0, 1.0), 3.14, 0.8, Certainty.DEFINITE, "lobar", "frontal", "left")
    change = ChangeOverTime(
        prior_study_instance_uid="2.25.72",
        prior_study_date="20250302",
        prior_sr_sop_instance_uid="2.25.73",
        prior_sr_series_instance_uid="2.25.74",
        assessed=True,
        new=trends.count(Trend.NEW),
        stable=trends.count(Trend.STABLE),
        undecided=(len(lesions),) if lesions else (),
        no_longer_seen=(gone,),
        aria_h="mild" if Trend.NEW in trends else "none",
        flags=("more than 4 microbleeds",),
        caveats=("the earlier scan is T2*-GRE: bleeds that are new here may have been invisible there",),
    )
    findings = replace(
        detection.findings,
        lesions=tuple(replace(x, trend=trend) for x, trend in zip(lesions, trends, strict=True)),
        change=change,
        placement=Placement(assessed=True, fit=0.93, coverage=0.98),
        image_quality=ImageQuality(0.9, 2.0, 0.98, 17.3, "air", 1.03),
    )
    return replace(detection, findings=findings)


def verified(detection: Detection, observer: str = "Müller^Jürgen") -> Detection:
    """State that a person has looked at `detection`, rejected microbleed 9 and added the last that is left."""
    lesions = detection.findings.lesions
    lesions = (*lesions[:-1], *(replace(x, origin=LesionOrigin.ADDED, probability=1.0) for x in lesions[-1:]))
    rejected = RejectedLesion(
        9, "2.25.75", (9.0, 8.0, 7.0), 2.22, 0.51, Certainty.POSSIBLE, "deep", "thalamus", "right"
    )
    verification = Verification(observer, "Klinikum Köln", datetime(2026, 3, 4, 9, 30, tzinfo=UTC), "Artefact at 9")
    findings = replace(detection.findings, lesions=lesions, rejected=(rejected,), verification=verification)
    return replace(detection, findings=findings)


def head(
    shape: tuple[int, int, int], lesions: int, matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.uint16]]:
    """Grey matter, white matter, ventricles, skull, some veins, and dark spheres; also the sphere labels."""
    rng = np.random.default_rng(7)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt((i / 0.78) ** 2 + (j / 0.92) ** 2 + (k / 1.25) ** 2)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), (0.6, 3, 3))
    image = np.where(radius < 1, 520 + 900 * texture, 0.0)
    image[(radius > 1.0) & (radius < 1.06)] = 60
    image[(radius >= 1.06) & (radius < 1.15)] = 380
    image[(radius < 0.8) & (np.abs(texture) < 0.02)] += 60
    image[((np.abs(i) - 0.13) / 0.09) ** 2 + (j / 0.4) ** 2 + (k / 0.5) ** 2 < 1] = 700
    veins = (radius > 0.3) & (radius < 0.95) & (np.abs(ndimage.gaussian_filter(texture, (1, 2, 2))) < 0.0009)
    image[veins] *= 0.55
    labels = np.zeros(shape, np.uint16)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    inside = np.argwhere((radius < 0.85) & (radius > 0.25))
    for number in range(1, lesions + 1):
        size = rng.uniform(1.3, 2.8)
        while True:
            centre = inside[rng.integers(len(inside))]
            reach = np.ceil((size + 1) / spacing).astype(int)
            box = tuple(slice(max(c - r, 0), c + r + 1) for c, r in zip(centre, reach, strict=True))
            if not labels[box].any():
                break
        local = np.stack(np.meshgrid(*(np.arange(s.start, min(s.stop, n)) for s, n in zip(box, shape, strict=True)),
                                     indexing="ij"), axis=-1)  # fmt: skip
        ball = (((local - centre) * spacing) ** 2).sum(axis=-1) <= size**2
        labels[box][ball] = number
    image[labels > 0] = 70
    image += rng.normal(0, 12, shape)
    return np.clip(ndimage.gaussian_filter(image, (0, 0.6, 0.6)), 0, 4095), labels


def _lesion(number: int, labels: NDArray[np.uint16], geometry: Geometry, swi: Volume, regions: bool) -> Lesion:
    voxels = np.argwhere(labels == number)
    centre = voxels.mean(axis=0)[::-1]
    k, j, i = (int(v) for v in np.rint(centre[::-1]))
    volume = len(voxels) * geometry.voxel_volume
    place = [("lobar", "frontal", "left"), ("lobar", "occipital", "right"), ("deep", "thalamus", "left"),
             ("deep", "basal ganglia", "right"), ("infratentorial", "brainstem", "midline")][number % 5]  # fmt: skip
    region, location, side = place if regions else (None, None, None)
    return Lesion(
        id=number,
        tracking_uid=derive_uid(KEY, "lesion", number),
        centroid_lps_mm=tuple(geometry.to_lps(centre).tolist()),
        voxel_ijk=(i, j, k),
        slice_sop_instance_uid=swi.frames[k].sop_instance_uid,
        diameter_mm=(6 * volume / np.pi) ** (1 / 3),
        volume_mm3=volume,
        probability=0.98 - 0.5 * ((number * 7) % 10) / 10,
        certainty=Certainty.DEFINITE if (number * 7) % 10 < 6 else Certainty.POSSIBLE,
        region=region,
        location=location,
        side=side,
    )


def _write(
    folder: Path,
    kind: str,
    swi: NDArray[np.uint16],
    angle: NDArray[np.float64],
    matrix: NDArray[np.float64],
    patient: dicom_factory.Patient,
    tags: Mapping[str, Any],
) -> list[tuple[str, tuple[FrameReference, ...]]]:
    """Series UID and frames (in slice order) of SWI and phase."""
    slices = len(swi)
    phase = dicom_factory.siemens_phase(angle)
    options = {"patient": patient, "matrix": matrix, "tags": tags}
    if kind == "classic":
        stacks = [
            dicom_factory.classic(swi, series_number=11, order=range(slices - 1, -1, -1), **options),
            dicom_factory.classic(phase, series_number=9, description="Pha_Images",
                                  image_type=("ORIGINAL", "PRIMARY", "P", "ND"), slope=2, intercept=-4096, **options),
        ]  # fmt: skip
        series = []
        for stack in stacks:
            paths = dicom_factory.write(stack, folder)
            frames = [_frame(ds, path) for ds, path in zip(stack, paths, strict=True)]
            series.append((str(stack[0].SeriesInstanceUID), tuple(frames)))
        return [(series[0][0], series[0][1][::-1]), series[1]]
    parts = [dicom_factory.Part(swi), dicom_factory.Part(phase, ("ORIGINAL", "PRIMARY", "P", "NONE"), "PHASE")]
    if kind == "enhanced":
        order = list(range(slices))[::-1]
        series = []
        for part, number in zip(parts, (11, 9), strict=True):
            ds = dicom_factory.enhanced([part], series_number=number, order=order, **options)
            (path,) = dicom_factory.write(ds, folder)
            frames = [_frame(ds, path, slices - k) for k in range(slices)]
            series.append((str(ds.SeriesInstanceUID), tuple(frames)))
        return series
    order = [n for k in range(slices) for n in (k, k + slices)]
    ds = dicom_factory.enhanced(parts, series_number=11, order=order, **options)
    (path,) = dicom_factory.write(ds, folder)
    uid = str(ds.SeriesInstanceUID)
    return [(uid, tuple(_frame(ds, path, 2 * k + 1 + shift) for k in range(slices))) for shift in (0, 1)]


def _frame(ds: Dataset, path: Path, number: int | None = None) -> FrameReference:
    return FrameReference(str(ds.SOPInstanceUID), str(ds.SOPClassUID), str(path), number)


def evaluations_in(report: Dataset) -> list[Dataset]:
    """The items of a report's container *Qualitative Evaluations*."""
    name = "Qualitative Evaluations"
    (container,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == name)
    return list(container.ContentSequence)

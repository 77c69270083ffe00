"""How is the truth written as DICOM? As the node writes findings: a Segmentation and a TID 1500 report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from pipeline.detect import Detection
from pipeline.findings import Certainty, Findings, Lesion, SeriesUsed
from pipeline.geometry import Acquisition, FrameReference, Volume
from pipeline.results import make_results, write_results
from pipeline.uids import derive_uid
from training.simulation.inclusion import InclusionKind
from training.simulation.protocol import Vendor
from training.simulation.study import SimulatedStudy

from .identity import StudyIdentity

_SERIES = {Vendor.SIEMENS: "swi", Vendor.GE: "swan", Vendor.UNITED_IMAGING: "swi", Vendor.PHILIPS: "swip"}


def _frames(study: SimulatedStudy, identity: StudyIdentity, files: list[Path], name: str) -> tuple[FrameReference, ...]:
    n = study.images.geometry.shape[0]
    if study.protocol.vendor is Vendor.PHILIPS:
        path = next(str(f) for f in files if f.stem == name)
        uid, per = identity.uid(name, 0), 2 if name == "swip" else 1
        return tuple(FrameReference(uid, EnhancedMRImageStorage, path, per * k + 1) for k in range(n))
    paths = sorted(str(f) for f in files if f.name.startswith(f"{name}-"))
    return tuple(FrameReference(identity.uid(name, k), MRImageStorage, paths[k]) for k in range(n))


def _lesions(
    study: SimulatedStudy, key: str, frames: tuple[FrameReference, ...]
) -> tuple[list[Lesion], NDArray[np.uint16]]:
    """Visible microbleeds as lesions, and their label map."""
    grid = study.images.geometry
    labels = np.zeros_like(study.truth.labels)
    lesions: list[Lesion] = []
    for entry in study.truth.of(InclusionKind.BLEED):
        if not entry.seen.visible:
            continue
        number = len(lesions) + 1
        inclusion = entry.inclusion
        labels[study.truth.labels == entry.label] = number
        i, j, k = (int(v) for v in np.round(grid.to_ijk(inclusion.centre_lps_mm)))
        lesions.append(
            Lesion(
                number,
                derive_uid(key, "lesion", number),
                inclusion.centre_lps_mm,
                (i, j, k),
                frames[min(max(k, 0), len(frames) - 1)].sop_instance_uid,
                round(entry.seen.apparent_diameter_mm, 2),
                round(entry.seen.apparent_volume_mm3, 2),
                1.0,
                Certainty.DEFINITE,
                inclusion.region or None,
                None,
                inclusion.side or None,
            )
        )
    return lesions, labels


def write_truth_objects(
    study: SimulatedStudy, identity: StudyIdentity, files: list[Path], folder: Path
) -> dict[str, Path]:
    """Write ``seg.dcm`` (if any microbleed is visible) and ``sr.dcm`` of the truth.

    Parameters
    ----------
    study, identity
        What was simulated.
    files : list of Path
        The DICOM files of the study, as :func:`write_dicom` returned them.
    folder : Path
        Where to write.
    """
    name = "t2star" if study.protocol.sequence.value == "t2star2d" else _SERIES[study.protocol.vendor]
    frames = _frames(study, identity, files, name)
    key = f"{identity.key}/truth"
    lesions, labels = _lesions(study, key, frames)
    volume = Volume(study.images.swi, study.images.geometry, frames, identity.uid(name))
    findings = Findings(
        profile="simulated truth",
        weights={},
        software="cmbtrain",
        study_instance_uid=identity.uid("study"),
        series=SeriesUsed(identity.uid(name)),
        lesions=tuple(lesions),
        candidates=(),
        warnings=("simulated images with known microbleeds; not a finding in a patient",),
    )
    created = datetime.strptime(identity.date + identity.time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    results = make_results(Detection(findings, labels, Acquisition(volume)), key=key, created=created)
    return write_results([r for r in results if r.kind != "capture"], folder)

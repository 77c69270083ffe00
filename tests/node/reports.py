"""Reports for the tests of the ways out: made by the node's own code from findings with everything in them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.deliver.report import ReportStore, Status
from node.ledger import Job, ResultFile, StudyRecord
from pipeline.findings import (
    Certainty,
    ChangeOverTime,
    Findings,
    ImageQuality,
    Lesion,
    Placement,
    PriorLesion,
    SeriesUsed,
    Trend,
    Verification,
)
from pipeline.uids import derive_uid

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
STUDY_UID = derive_uid("report-test", "study")
OBJECTS = [ResultFile(kind, derive_uid("report-test", kind), "1.2.3.88", f"{kind}.dcm") for kind in ("seg", "sr")]


def study(**changes: Any) -> StudyRecord:
    """The study of Jörg Müller, or another."""
    given = {
        "study_instance_uid": STUDY_UID,
        "patient_id": "P-1",
        "issuer_of_patient_id": "",
        "patient_name": "Müller^Jörg^A^Dr.^MD=山田^太郎",
        "patient_birth_date": "19500131",
        "patient_sex": "M",
        "accession_number": "ACC-7",
        "study_date": "20260301",
        "study_time": "071500.120",
        "study_description": "MR brain",
        "referring_physician": "Referrer^Ann",
    }
    return _record(StudyRecord, {**given, **changes})


def job(number: int = 7, key: str = "ab" * 32) -> Job:
    """A job that is being analysed."""
    given = {"id": number, "key": key, "study_instance_uid": STUDY_UID, "warnings": (), "created_at": AT}
    return _record(Job, given)


def _record(kind: Any, given: dict[str, Any]) -> Any:
    """A record of the ledger of which a report needs only these fields."""
    return kind(**{**{field.name: None for field in fields(kind)}, **given})


def lesion(number: int, **changes: Any) -> Lesion:
    """A definite bleed of the left frontal lobe, or another."""
    given: dict[str, Any] = {
        "id": number,
        "tracking_uid": derive_uid("report-test", "lesion", number),
        "centroid_lps_mm": (10.0 * number, -20.5, 33.25),
        "voxel_ijk": (1, 2, 3),
        "slice_sop_instance_uid": "1.2.3.4",
        "diameter_mm": 4.2,
        "volume_mm3": 38.8,
        "probability": 0.93,
        "certainty": Certainty.DEFINITE,
        "region": "lobar",
        "location": "frontal",
        "side": "left",
    }
    return Lesion(**{**given, **changes})


def findings(*lesions: Lesion, **changes: Any) -> Findings:
    """Findings with these bleeds."""
    given: dict[str, Any] = {
        "profile": "frst",
        "weights": {},
        "software": "cmb-node 1.2",
        "study_instance_uid": STUDY_UID,
        "series": SeriesUsed("1.2.3"),
        "lesions": lesions,
        "candidates": (),
        "warnings": ("no phase image: calcification cannot be told apart",),
        "placement": Placement(True, fit=0.93),
        "image_quality": ImageQuality(in_plane_mm=0.9, slice_mm=2.0, coverage=0.99, snr=21.3, motion=1.04),
    }
    return Findings(**{**given, **changes})


def longitudinal() -> Findings:
    """Three new bleeds, one stable, one that is no longer seen: ARIA-H mild."""
    new = [lesion(number, trend=Trend.NEW) for number in (1, 2, 3)]
    thalamic = {"region": "deep", "location": "thalamus", "side": "right", "certainty": Certainty.POSSIBLE}
    stable = lesion(4, trend=Trend.STABLE, probability=0.41, prior_tracking_uid="1.9", **thalamic)
    gone = PriorLesion("1.8", (1.0, 2.0, 3.0), 2.9, 0.8, Certainty.DEFINITE, "infratentorial", "cerebellum", "left")
    change = ChangeOverTime(
        prior_study_instance_uid="1.5",
        prior_study_date="20250228",
        prior_sr_sop_instance_uid="1.6",
        assessed=True,
        new=3,
        stable=1,
        no_longer_seen=(gone,),
        aria_h="mild",
        flags=("3 or more new microbleeds",),
        caveats=("SWI shows more than T2*-GRE",),
    )
    return findings(*new, stable, change=change)


def verified(given: Findings, observer: str = "Reader^Rita") -> Findings:
    """The same, verified by a person."""
    return replace(given, verification=Verification(observer, "Hospital", AT))


def report(given: Findings | None = None, status: Status = "preliminary", number: int = 7, **of_study: Any) -> Any:
    """The report of these findings, as it is read back from its file."""
    document = (longitudinal() if given is None else given).to_json()
    made = ReportStore(zone=UTC).make(job(number), study(**of_study), document, OBJECTS, status)
    return json.loads(json.dumps(made))


def write(folder: Path, name: str = "report.json", **given: Any) -> Path:
    """A report in a file."""
    path = folder / name
    path.write_text(json.dumps(report(**given)))
    return path

"""Monitoring counts what the detector found, and what readers made of it, study by study, on both databases."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from node.ledger import AddedMicrobleed, Correction, Ledger, LesionVerdict, MonitoredStudy, NewJob
from node.ledger.records import QA_PATIENT_ID
from pipeline.findings import Findings, ImageQuality, LesionOrigin, RejectedLesion
from pipeline.uids import derive_uid
from tests.node.seeded import Seeder, make_findings

MEASURED = ImageQuality(in_plane_mm=0.8, slice_mm=2.0, coverage=1.0, snr=21.5, snr_from="air", motion=1.25)
OUTSIDE = "the slice thickness of 4 mm is outside the range of the training images"


def seeder_of(url: str, folder: Path) -> Seeder:
    seeder = Seeder(folder)
    seeder.ledger.close()
    seeder.ledger = Ledger(url, clock=lambda: seeder.now)
    return seeder


def analysed(seeder: Seeder, key: str, lesions: int, *warnings: str, patient_id: str = "P-1") -> Findings:
    uid = seeder.receive(key, "Doe^Jane", patient_id, images=1)
    seeder.settle(key)
    seeder.open(key)
    return seeder.analyse(key, 0, findings=replace(make_findings(uid, lesions, warnings), image_quality=MEASURED))


def verified(seeder: Seeder, key: str, found: Findings, reject: int, add: int) -> Findings:
    """A reader rejects the first findings and adds some; the corrected result is there."""
    verdicts = tuple(LesionVerdict(lesion.tracking_uid, accepted=False) for lesion in found.lesions[:reject])
    added = tuple(AddedMicrobleed((1.0 * n, 0.0, 0.0)) for n in range(add))
    job = seeder.ledger.open_correction(
        seeder.jobs[key], Correction("Reader^Ada", "Hospital", verdicts, added), actor="ada"
    )
    seeder.jobs[key] = job.id
    values = [asdict(lesion) for lesion in found.lesions[:reject]]
    fields = RejectedLesion.__dataclass_fields__
    rejected = tuple(RejectedLesion(**{name: value[name] for name in fields}) for value in values)
    new = tuple(
        replace(found.lesions[0], id=100 + n, tracking_uid=f"2.25.{100 + n}", origin=LesionOrigin.ADDED)
        for n in range(add)
    )
    corrected = replace(found, lesions=(*found.lesions[reject:], *new), rejected=(*found.rejected, *rejected))
    return seeder.analyse(key, 0, findings=corrected)


def test_each_study_counts_once_with_what_the_reader_made_of_it(ledger_url: str, fast_folder: Path) -> None:
    seeder = seeder_of(ledger_url, fast_folder / "node")
    start = seeder.now
    analysed(seeder, "plain", 3, OUTSIDE)
    found = analysed(seeder, "read", 5)
    again = verified(seeder, "read", found, reject=2, add=1)
    verified(seeder, "read", again, reject=1, add=0)
    seeder.receive("waiting", "Doe^Jane", "P-2", images=1)
    analysed(seeder, "phantom", 6, patient_id=QA_PATIENT_ID)
    rows = seeder.ledger.monitored_studies(start)
    later = seeder.ledger.monitored_studies(seeder.now + timedelta(days=1))
    seeder.ledger.close()
    assert [replace(row, received_at=start) for row in rows] == [
        MonitoredStudy(start, "", "frst", 3, 2, 21.5, 1.25, outside_training=True, verified=False),
        MonitoredStudy(start, "", "frst", 5, 3, 21.5, 1.25, outside_training=False, verified=True, rejected=3, added=1),
    ]
    assert later == []


def test_a_new_analysis_takes_the_place_of_an_earlier_correction(ledger_url: str, fast_folder: Path) -> None:
    seeder = seeder_of(ledger_url, fast_folder / "node")
    start = seeder.now
    found = analysed(seeder, "read", 4)
    verified(seeder, "read", found, reject=4, add=0)
    job = seeder.ledger.open_job(
        NewJob(
            key="of more images",
            study_instance_uid=seeder.studies["read"],
            swi_series_uid=derive_uid("read", 4),
            profile="frst",
        )
    )
    seeder.jobs["read"] = job.id
    seeder.analyse("read", 2)
    (row,) = seeder.ledger.monitored_studies(start)
    seeder.ledger.close()
    assert (row.total, row.verified, row.snr) == (2, False, None)


def test_what_results_of_earlier_versions_called_outside_the_training_range_still_counts(
    ledger_url: str, fast_folder: Path
) -> None:
    seeder = seeder_of(ledger_url, fast_folder / "node")
    start = seeder.now
    analysed(seeder, "old", 3)
    with seeder.ledger.engine.begin() as connection:
        connection.execute(text("UPDATE findings SET limits = 'no phase; outside the training range'"))
    (row,) = seeder.ledger.monitored_studies(start)
    seeder.ledger.close()
    assert row.outside_training

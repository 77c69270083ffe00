"""Jobs for the tests of the workers: opened in a real ledger, with files in a real archive."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from node.archive import Archive
from node.ledger import Job, Ledger, NewInstance, NewJob, Priority, ResultFile, SeriesVerdict
from node.route.routing import route_study
from node.route.rules import load_table
from node.settings import QueueSettings
from pipeline.findings import Findings, SeriesUsed
from pipeline.uids import derive_uid
from tests.classical import classical_settings

QUICK = QueueSettings(lease_s=30, retry_first_s=0.01, retry_longest_s=0.02, max_attempts=3)


def receive(
    ledger: Ledger, archive: Archive, name: str, images: int = 3, settled: bool = True, at: datetime | None = None
) -> str:
    """Store one SWI series named `name`; returns its Series Instance UID."""
    study, series = derive_uid(name, "study"), derive_uid(name, "series")
    for k in range(images):
        sop, content = derive_uid(name, k), f"{name} {k}".encode()
        stored = archive.store(sop, series, study, content)
        ledger.record_instance(
            NewInstance(
                sop_instance_uid=sop,
                sop_class_uid=MRImageStorage,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                series_instance_uid=series,
                study_instance_uid=study,
                path=stored.path,
                size=stored.size,
                sha256=stored.sha256,
                received_at=at or datetime.now(UTC),
                modality="MR",
            )
        )
    if settled:
        ledger.settle_series(series, "quiet")
    return series


def open_job(
    ledger: Ledger,
    archive: Archive,
    name: str = "one",
    destinations: tuple[str, ...] = ("pacs",),
    priority: Priority = Priority.ROUTINE,
) -> Job:
    """Open a job on a fresh study."""
    series, study = receive(ledger, archive, name), derive_uid(name, "study")
    verdict = SeriesVerdict(series, analysed=True, role="swi", rule="test", why="")
    ledger.mark_routed(study, ledger.study(study).revision, [verdict])
    new = NewJob(
        key=hashlib.sha256(name.encode()).hexdigest(),
        study_instance_uid=study,
        swi_series_uid=series,
        profile="frst",
        priority=priority,
        destinations=destinations,
    )
    return ledger.open_job(new)


def job_on(study: str, paths: list[Path], ledger: Ledger, archive: Archive) -> Job:
    """Bring a study in and route it, as the receiver and the sweep do."""
    for path in paths:
        dataset = dcmread(path, stop_before_pixels=True)
        content = path.read_bytes()
        start = 144 + int.from_bytes(content[140:144], "little")  # after the file meta information, as it is received
        with archive.incoming() as incoming:
            incoming.write_header(content[:start])
            incoming.write(content[start:])
            stored = archive.store(dataset.SOPInstanceUID, dataset.SeriesInstanceUID, study, incoming)
        ledger.record_instance(
            NewInstance(
                sop_instance_uid=dataset.SOPInstanceUID,
                sop_class_uid=dataset.SOPClassUID,
                transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
                series_instance_uid=dataset.SeriesInstanceUID,
                study_instance_uid=study,
                path=stored.path,
                size=stored.size,
                sha256=stored.sha256,
                received_at=datetime.now(UTC),
                modality="MR",
            )
        )
    for series in ledger.series(study):
        ledger.settle_series(series.series_instance_uid, "quiet")
    settings = classical_settings(archive.root)
    job = route_study(ledger, archive, study, load_table(settings), settings)
    assert job is not None
    return job


def capture(job: Job, kind: str = "capture") -> Dataset:
    """A small Secondary Capture, the same for the same job."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, derive_uid(job.key, kind)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = job.study_instance_uid, derive_uid(job.key, "results")
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Test^Brain", "T1", "OT"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.PatientBirthDate = dataset.PatientSex = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.ConversionType = 9001, 1, "WSD"
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = np.zeros((8, 8), np.uint8).tobytes()
    return dataset


def findings_of(job: Job, **changes: Any) -> Findings:
    """Findings without a lesion."""
    given = {"lesions": (), "candidates": (), "weights": {}, "software": "test", **changes}
    return Findings(
        profile=job.profile,
        study_instance_uid=job.study_instance_uid,
        series=SeriesUsed(job.swi_series_uid or ""),
        **given,
    )


def finish(ledger: Ledger, archive: Archive, job: Job, kinds: tuple[str, ...] = ("seg", "sr", "capture")) -> Job:
    """Do what an analysis does at its end, with small objects of these kinds."""
    assert ledger.claim_job(job.id, "runner", 30) is not None
    files = []
    for kind in kinds:
        dataset, path = capture(job, kind), archive.outbox(job.id) / f"{kind}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        relative, content = path.relative_to(archive.root).as_posix(), path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files.append(ResultFile(kind, dataset.SOPInstanceUID, dataset.SOPClassUID, relative, len(content), digest))
    assert ledger.finish_analysis(job.id, "runner", findings_of(job).to_json(), files)
    return ledger.job(job.id)

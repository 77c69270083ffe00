"""A ledger with one study in every state a worklist can show, made through the ledger's own doors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from node.ledger import Job, Ledger, NewInstance, NewJob, Priority, ResultFile, SeriesVerdict
from pipeline.findings import Certainty, Findings, Lesion, ScoredCandidate, SeriesUsed
from pipeline.uids import derive_uid

from .pictures import write_pictures

HOSTILE = "<script>alert('xss')</script>^\"><img src=x onerror=alert(1)>"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
SERIES = (  # number, description, role, rule, why
    (4, "SWI_Images", "swi", "name", "derived SWI by its description"),
    (5, "Pha_Images", "phase", "image-type", "phase by image type, same geometry as the SWI"),
    (6, "mIP_Images(SW)", "mip", "mip-name", "a minimum intensity projection is never analysed"),
)


@dataclass(frozen=True)
class Seeded:
    """What lies in the ledger: Study Instance UIDs by name of the state, and the job of each."""

    ledger: Ledger
    data_dir: Path
    studies: dict[str, str]
    jobs: dict[str, int]


class Seeder:
    """Writes studies into a ledger at a settable time."""

    def __init__(self, data_dir: Path) -> None:
        self.now = datetime.now(UTC) - timedelta(hours=2)
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(f"sqlite:///{data_dir / 'ledger.sqlite3'}", clock=lambda: self.now)
        self.ledger.upgrade()
        self.studies: dict[str, str] = {}
        self.jobs: dict[str, int] = {}

    def receive(self, key: str, name: str, patient_id: str, description: str = "MR Head SWI", images: int = 3) -> str:
        """Instances of three series arrive."""
        study = self.studies[key] = derive_uid(key, "study")
        for number, series_description, *_ in SERIES:
            for k in range(images):
                self.now += timedelta(milliseconds=40)
                self.ledger.record_instance(
                    NewInstance(
                        sop_instance_uid=derive_uid(key, number, k),
                        sop_class_uid=MR_IMAGE,
                        transfer_syntax_uid=ExplicitVRLittleEndian,
                        series_instance_uid=derive_uid(key, number),
                        study_instance_uid=study,
                        path=f"studies/{key}/{number}/{k}.dcm",
                        size=1000,
                        sha256="0" * 64,
                        received_at=self.now,
                        association=key,
                        orientation="axial",
                        position=2.0 * k,
                        patient_name=name,
                        patient_id=patient_id,
                        patient_birth_date="19480312",
                        patient_sex="F",
                        accession_number=f"A{patient_id[2:6]}7",
                        study_date="20261121",
                        study_description=description,
                        modality="MR",
                        series_number=number,
                        series_description=series_description,
                    )
                )
        return study

    def settle(self, key: str, *, ignored: str = "") -> None:
        """The series settle, and routing gives its verdict."""
        self.now += timedelta(seconds=10)
        study = self.studies[key]
        for number, *_ in SERIES:
            self.ledger.settle_series(derive_uid(key, number), "quiet for 10 s, slices evenly spaced")
        verdicts = [
            SeriesVerdict(derive_uid(key, number), role != "mip" and not ignored, role, rule, why)
            for number, _description, role, rule, why in SERIES
        ]
        self.ledger.mark_routed(study, self.ledger.study(study).revision, verdicts, ignored or "SWI with phase")

    def open(self, key: str, priority: Priority = Priority.ROUTINE) -> Job:
        """A job is opened for it."""
        job = self.ledger.open_job(
            NewJob(
                key=derive_uid(key, "job"),
                study_instance_uid=self.studies[key],
                swi_series_uid=derive_uid(key, 4),
                phase_series_uid=derive_uid(key, 5),
                profile="frst",
                priority=priority,
                destinations=("pacs",),
            )
        )
        self.jobs[key] = job.id
        return job

    def analyse(
        self, key: str, lesions: int, warnings: tuple[str, ...] = (), findings: Findings | None = None
    ) -> Findings:
        """The job is analysed; its results lie in the outbox."""
        number = self.jobs[key]
        self.ledger.claim_job(number, "worker-1", 30)
        self.now += timedelta(seconds=9.4)
        folder = self.data_dir / "outbox" / str(number)
        folder.mkdir(parents=True)
        write_capture(folder / "capture.dcm")
        kinds = ["sr", "capture"] + (["seg"] if lesions else [])
        files = [
            ResultFile(kind, derive_uid(key, kind), SecondaryCaptureImageStorage, f"outbox/{number}/{kind}.dcm")
            for kind in kinds
        ]
        findings = findings or make_findings(self.studies[key], lesions, warnings)
        write_pictures(folder, findings)
        self.ledger.finish_analysis(number, "worker-1", findings.to_json(), files)
        return findings

    def deliver(self, key: str, *, refused: str = "") -> None:
        """The destination takes everything, or says why not."""
        for delivery in self.ledger.claim_deliveries("pacs", "sender-1", 30, 10):
            self.now += timedelta(milliseconds=120)
            if refused:
                self.ledger.delivery_failed(delivery.id, "sender-1", refused, self.now + timedelta(seconds=20))
            else:
                self.ledger.delivery_accepted(delivery.id, "sender-1", 0, "stored")


def seed(data_dir: Path, seeder: Seeder | None = None) -> Seeded:
    """One study in every state; the newest first is the order of the keys read backwards."""
    s = seeder or Seeder(data_dir)
    s.receive("delivered", "Hopper^Grace", "P-1001")
    s.settle("delivered")
    s.open("delivered")
    s.analyse("delivered", 7, ("no phase: calcifications cannot be told from bleeds",))
    s.deliver("delivered")
    s.receive("clean", "Lovelace^Ada", "P-1002")
    s.settle("clean")
    s.open("clean")
    s.analyse("clean", 0)
    s.deliver("clean")
    s.receive("ignored", "Curie^Marie", "P-1003", "MR Knee left")
    s.settle("ignored", ignored="no susceptibility-weighted series: 3 series are taken for something else")
    s.receive("failed", "Yamada^Tarou=山田^太郎", "P-1004")
    s.settle("failed")
    s.open("failed")
    s.ledger.claim_job(s.jobs["failed"], "worker-1", 30)
    why = "series 4 SWI_Images: slice 31 of 72 is missing between 58.0 and 62.0 mm; send the series again"
    s.ledger.fail_attempt(s.jobs["failed"], "worker-1", why, max_attempts=3, permanent=True)
    s.receive("delivering", "Nightingale^Florence^^Dr", "P-1005")
    s.settle("delivering")
    s.open("delivering")
    s.analyse("delivering", 12)
    s.deliver("delivering", refused="PACS@10.0.0.7:104 does not answer")
    s.receive("running", "Turing^Alan", "P-1006")
    s.settle("running")
    s.open("running", Priority.STAT)
    s.ledger.claim_job(s.jobs["running"], "worker-1", 30)
    s.ledger.heartbeat(s.jobs["running"], "worker-1", 30, progress="candidates")
    s.receive("queued", HOSTILE, "P-1007 <b>&amp;</b>", "<i>MR</i> Head")
    s.settle("queued")
    s.open("queued")
    s.receive("receiving", "Noether^Emmy", "P-1008")
    return Seeded(s.ledger, data_dir, s.studies, s.jobs)


def make_findings(study: str, lesions: int, warnings: tuple[str, ...] = ()) -> Findings:
    """Findings with so many lesions."""
    made = tuple(
        Lesion(
            id=n,
            tracking_uid=derive_uid(study, "lesion", n),
            centroid_lps_mm=(-30.25 + 9 * n, 12.5 - 4 * n, 8.0 + 2 * n),
            voxel_ijk=(100 + 7 * n, 120 - n, 10 + n),
            slice_sop_instance_uid=derive_uid(study, "slice", n),
            diameter_mm=2.2 + 0.4 * n,
            volume_mm3=5.5 + 4.1 * n,
            probability=max(0.31, 0.98 - 0.07 * n),
            certainty=Certainty.DEFINITE if n <= (lesions + 1) // 2 else Certainty.POSSIBLE,
            region=("lobar", "deep", "infratentorial")[n % 3],
            location=("frontal", "thalamus", "cerebellum")[n % 3],
            side=("left", "right")[n % 2],
        )
        for n in range(1, lesions + 1)
    )
    return Findings(
        profile="frst",
        weights={},
        software="0.1.0",
        study_instance_uid=study,
        series=SeriesUsed(swi=derive_uid(study, 4), phase=derive_uid(study, 5)),
        lesions=made,
        candidates=tuple(ScoredCandidate(lesion.centroid_lps_mm, lesion.probability) for lesion in made),
        warnings=warnings,
        timing_s={"read": 0.8, "brain": 3.1, "candidates": 2.2, "measure": 0.3, "results": 0.9},
    )


def write_capture(path: Path, rows: int = 480, columns: int = 640, pages: int = 1) -> None:
    """A small RGB Secondary Capture: grey ramp with a marked square; the first column tells the page."""
    page = np.zeros((rows, columns, 3), np.uint8)
    page[...] = np.linspace(0, 120, columns, dtype=np.uint8)[None, :, None]
    page[rows // 4 : rows // 2, columns // 4 : columns // 2] = (231, 184, 92)
    pixels = np.stack([page] * pages)
    pixels[:, :, 0] = np.arange(pages, dtype=np.uint8)[:, None, None]
    dataset = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": derive_uid(str(path), "capture"),
        **({"NumberOfFrames": pages} if pages > 1 else {}),
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)

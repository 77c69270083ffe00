"""A PACS with studies of a patient, and a node that asks it: both real, on free loopback ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from node.archive import Archive
from node.ledger import Ledger, Priority, PriorRequest
from node.priors.fetcher import Fetcher
from node.receive.ingest import Ingest
from node.receive.receiver import Receiver
from node.retrieve.dicom_qr import QueryRetrieve
from node.retrieve.dicomweb import DicomWeb
from node.retrieve.source import StudySource
from node.settings import Settings
from node.settings.priors import DicomWebPacs
from tests.dicom_factory import Patient, encode, siemens_swi, write
from tests.node.receiving import send
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port

AE_TITLE = "CMBNODE"


def study(seed: str, date: str, patient_id: str = "P1", birth_date: str = "19500101", **tags: str) -> list[Dataset]:
    """Three slices of an SWI, with phase and magnitude: small, but a whole study."""
    given = {"StudyDate": date, "StudyTime": "101500", "PatientBirthDate": birth_date, **tags}
    patient = Patient(seed=seed, patient_id=patient_id, name="Müller^Änne", tags=given)
    image = np.random.default_rng(len(seed)).integers(100, 900, (3, 16, 16)).astype(np.uint16)
    return siemens_swi(image, np.zeros(image.shape), image, patient=patient)


def uid_of(datasets: list[Dataset]) -> str:
    return str(datasets[0].StudyInstanceUID)


@dataclass(frozen=True)
class Site:
    """The node: its receiver runs; whoever asks the PACS is for the test to start."""

    settings: Settings
    ledger: Ledger
    archive: Archive
    port: int

    def receives(self, datasets: list[Dataset], **asked: Any) -> str:
        """A study is sent to the node, settles, and its earlier studies are to be asked for."""
        for answer in send(self.port, *[encode(dataset) for dataset in datasets]):
            assert answer.Status == 0
        uid = uid_of(datasets)
        self.settle(uid)
        self.ledger.ask_for_priors(uid, asked.pop("priority", Priority.ROUTINE), 60, **asked)
        return uid

    def settle(self, uid: str) -> None:
        for series in self.ledger.series(uid):
            self.ledger.settle_series(series.series_instance_uid, "quiet")

    def dicom(self, port: int, calling: str = AE_TITLE, **more: Any) -> StudySource:
        """A PACS on this port, asked by C-FIND and C-MOVE or C-GET."""
        asked = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": port, **more}
        settings = self.settings.model_validate({**self.settings.model_dump(), "priors": {"dicom": asked}})
        assert settings.priors.dicom is not None
        return QueryRetrieve(settings.priors.dicom, calling, self.ingest)

    def dicomweb(self, url: str, **more: Any) -> StudySource:
        """A PACS asked by QIDO-RS and WADO-RS."""
        return DicomWeb(DicomWebPacs(url=url, **more), self.ingest)

    @property
    def ingest(self) -> Ingest:
        """What stores images that do not come through the receiver."""
        return Ingest(self.ledger, self.archive, self.settings.receiver.max_instance_bytes)

    def ask(self, source: StudySource, uid: str, **priors: Any) -> PriorRequest:
        """Work on the one request that is due, and return what became of it."""
        settings = self.settings.model_copy(update={"priors": self.settings.priors.model_copy(update=priors)})
        assert Fetcher(settings, self.ledger, source).work("asker")
        return self.request(uid)

    def request(self, uid: str) -> PriorRequest:
        request = self.ledger.prior_request(uid)
        assert request is not None
        return request

    def images(self, uid: str) -> int:
        """Images of a study that lie in the archive and in the ledger."""
        rows = self.ledger.instances(*(series.series_instance_uid for series in self.ledger.series(uid)))
        return sum(self.archive.path(row.path).is_file() for row in rows)


@contextmanager
def running_site(folder: Path, port: int = 0, priors: dict[str, Any] | None = None, **receiver: Any) -> Iterator[Site]:
    """Run the receiver of a node on `port`."""
    given = {"host": "127.0.0.1", "port": port, **receiver}
    queue = {"retry_first_s": 0.01, "retry_longest_s": 0.01, "lease_s": 2.0}
    settings = Settings(
        data_dir=folder,
        ae_title=AE_TITLE,
        receiver=given,
        queue=queue,
        priors=priors or {},  # type: ignore[arg-type]
    )
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    archive = Archive(folder, 0)
    try:
        with Receiver(settings, ledger, archive) as running:
            yield Site(settings, ledger, archive, running.port)
    finally:
        ledger.close()


@contextmanager
def running_pacs(folder: Path, *studies: list[Dataset]) -> Iterator[tuple[Orthanc, int]]:
    """Run an Orthanc that holds these studies and knows a node; the port the node must listen on."""
    port = free_port()
    with run_orthanc(folder / "pacs", node=(AE_TITLE, port)) as orthanc:
        for datasets in studies:
            orthanc.upload(*write(datasets, folder / uid_of(datasets), names="{series}-{n}.dcm"))
        yield orthanc, port

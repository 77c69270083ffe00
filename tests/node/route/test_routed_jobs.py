"""The whole step of routing: from what the ledger and the archive hold of a settled study to its job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from pydicom import Dataset

from node.archive import Archive
from node.ledger import JobState, Ledger, NewInstance, SeriesState
from node.receive.ingest import slice_place
from node.route.routing import RoutingError, route_ready, route_study
from node.route.rules import RoutingTable
from node.settings import Settings
from tests.dicom_factory import Patient, write
from tests.node.conftest import Clock

from .swi_example import swi_rule, swi_study


class Node:
    """A ledger and an archive that images can be put into, as the receiver would."""

    def __init__(self, ledger: Ledger, settings: Settings, table: RoutingTable, clock: Clock) -> None:
        self.ledger, self.settings, self.table, self.clock = ledger, settings, table, clock
        self.archive = Archive(settings.data_dir)

    def receive(self, images: Iterable[Dataset], folder: Path) -> None:
        images = list(images)
        for ds, file in zip(images, write(images, folder, names="{n:04d}.dcm"), strict=True):
            stored = self.archive.store(ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID, file.read_bytes())
            key, position = slice_place(ds.get("ImageOrientationPatient"), ds.get("ImagePositionPatient"))
            self.ledger.record_instance(
                NewInstance(
                    sop_instance_uid=ds.SOPInstanceUID,
                    sop_class_uid=ds.SOPClassUID,
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    series_instance_uid=ds.SeriesInstanceUID,
                    study_instance_uid=ds.StudyInstanceUID,
                    path=stored.path,
                    size=stored.size,
                    sha256=stored.sha256,
                    received_at=self.clock(),
                    orientation=key,
                    position=position,
                    series_number=ds.SeriesNumber,
                    modality=ds.Modality,
                )
            )

    def settle(self, whole: bool = True) -> None:
        for series in self.ledger.series_receiving():
            self.ledger.settle_series(series.series_instance_uid, "quiet, though a slice is missing", whole=whole)

    def route(self) -> list[int]:
        return [job.id for job in route_ready(self.ledger, self.archive, self.table, self.settings)]


@pytest.fixture
def node(ledger: Ledger, settings: Settings, rules: Callable[[str], RoutingTable], clock: Clock) -> Node:
    return Node(ledger, settings, rules(swi_rule()), clock)


def test_a_settled_study_gets_one_job(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    study_uid = images[0].StudyInstanceUID
    node.receive(images, tmp_path / "a")
    assert node.route() == []  # not settled
    node.settle()
    (job_id,) = node.route()
    job = node.ledger.job(job_id)
    uids = {ds.SeriesNumber: ds.SeriesInstanceUID for ds in images}
    assert (job.swi_series_uid, job.phase_series_uid, job.magnitude_series_uid) == (uids[11], uids[9], uids[8])
    assert (job.state, job.destinations, job.warnings) == (JobState.QUEUED, ("pacs", "research"), ())
    series = {s.series_number: s for s in node.ledger.series(study_uid)}
    assert series[11].state is SeriesState.SETTLED
    assert (series[10].state, series[10].role) == (SeriesState.IGNORED, "mip")
    assert "never analysed" in series[10].why
    assert series[9].why == "phase, used with SWI series 11 (SWI_Images)"
    assert node.route() == []  # once
    assert "series 11" in node.ledger.study(study_uid).why


def test_another_series_that_comes_later_changes_nothing(node: Node, tmp_path: Path) -> None:
    node.receive([ds for ds in swi_study() if ds.SeriesNumber != 2], tmp_path / "a")
    node.settle()
    first = node.route()
    node.receive([ds for ds in swi_study() if ds.SeriesNumber == 2], tmp_path / "b")
    node.settle()
    assert node.route() == first
    assert node.ledger.counts().jobs == {"queued": 1}


def test_a_late_slice_makes_a_new_job(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    late = next(ds for ds in images if ds.SeriesNumber == 11)
    node.receive([ds for ds in images if ds is not late], tmp_path / "a")
    node.settle(whole=False)
    (first,) = node.route()
    assert any("series 11 may be incomplete" in warning for warning in node.ledger.job(first).warnings)
    node.receive([late], tmp_path / "b")
    node.settle()
    (second,) = node.route()
    assert node.ledger.job(first).state is JobState.SUPERSEDED
    assert node.ledger.job(second).supersedes == first
    assert [job.id for job in node.ledger.queued_jobs()] == [second]


def test_a_file_that_cannot_be_read_is_told(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    node.receive(images, tmp_path / "a")
    swi = next(ds for ds in images if ds.SeriesNumber == 11)
    (path,) = [i.path for i in node.ledger.instances(swi.SeriesInstanceUID) if i.sop_instance_uid == swi.SOPInstanceUID]
    node.archive.path(path).write_bytes(b"\0" * 1000)
    node.settle()
    (job_id,) = node.route()
    (warning,) = node.ledger.job(job_id).warnings
    assert warning.startswith("left out, not readable: ")


def test_a_study_of_which_nothing_can_be_read_is_ignored(node: Node, tmp_path: Path) -> None:
    images = [ds for ds in swi_study() if ds.SeriesNumber == 11]
    node.receive(images, tmp_path / "a")
    for stored in node.ledger.instances(images[0].SeriesInstanceUID):
        node.archive.path(stored.path).write_bytes(b"")
    node.settle()
    assert node.route() == []
    (series,) = node.ledger.series(images[0].StudyInstanceUID)
    assert series.state is SeriesState.IGNORED
    assert "none of its files can be read" in series.why
    assert "none of its files can be read" in node.ledger.study(images[0].StudyInstanceUID).why


def test_one_slice_after_retention_makes_no_result(node: Node, tmp_path: Path) -> None:
    images = [ds for ds in swi_study() if ds.SeriesNumber == 11]
    node.receive(images, tmp_path / "a")
    node.settle()
    (job_id,) = node.route()
    study_uid = images[0].StudyInstanceUID
    node.ledger.claim_job(job_id, "worker", 30)
    node.ledger.fail_attempt(job_id, "worker", "unusable", 3, permanent=True)
    assert node.ledger.mark_removed(study_uid, node.clock())
    node.receive(images[:1], tmp_path / "b")
    node.settle()
    assert node.route() == []
    assert "no longer in the archive" in node.ledger.study(study_uid).why
    node.receive(images, tmp_path / "c")
    node.settle()
    (again,) = node.route()  # all of it: the same images, so the same key
    assert node.ledger.job(again).key == node.ledger.job(job_id).key


def test_a_study_that_changes_while_it_is_routed_stays_ready(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    node.receive([ds for ds in images if ds.SeriesNumber == 11], tmp_path / "a")
    node.settle()
    study_uid = images[0].StudyInstanceUID

    class Slow(Archive):
        """While its paths are asked for, images arrive."""

        def path(self, relative: str) -> Path:
            if not arrived:
                arrived.append(True)
                node.receive([ds for ds in images if ds.SeriesNumber == 9], tmp_path / "b")
            return super().path(relative)

    arrived: list[bool] = []
    job = route_study(node.ledger, Slow(node.settings.data_dir), study_uid, node.table, node.settings)
    assert job is not None
    assert job.phase_series_uid is None
    node.settle()
    (second,) = node.route()
    assert node.ledger.job(second).phase_series_uid is not None
    assert node.ledger.job(job.id).state is JobState.SUPERSEDED


def test_a_study_that_cannot_be_routed_holds_up_no_other(node: Node, tmp_path: Path) -> None:
    uids = []
    for seed in ("first", "second"):
        images = [ds for ds in swi_study(Patient(seed=seed)) if ds.SeriesNumber == 11]
        uids.append(images[0].StudyInstanceUID)
        node.receive(images, tmp_path / seed)
        node.clock.forward(1)
    node.settle()

    class Away(Archive):
        """The files of the first study cannot be reached."""

        def path(self, relative: str) -> Path:
            if uids[0] in relative:
                raise OSError("the disk is away")
            return super().path(relative)

    with pytest.raises(RoutingError, match=r"1 not routed yet: OSError: the disk is away"):
        route_ready(node.ledger, Away(node.settings.data_dir), node.table, node.settings)
    assert [job.study_instance_uid for job in node.ledger.queued_jobs()] == [uids[1]]
    (job_id,) = node.route()  # it is back
    assert node.ledger.job(job_id).study_instance_uid == uids[0]

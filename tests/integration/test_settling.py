"""Studies as hospitals send them (late, twice, mixed up, from two sides): the right series, the right result, once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Job, JobState, Ledger
from tests.dicom_factory import Patient, affine, siemens_swi, write
from tests.heads import BLEEDS, SPACING, small_head
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

SR, IMAGE = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.4"
pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Study:
    """A study on disk: its files by series number, slice by slice."""

    uid: str
    files: dict[int, list[Path]]

    def __getitem__(self, numbers: int | tuple[int, ...]) -> list[Path]:
        chosen = (numbers,) if isinstance(numbers, int) else numbers
        return [path for number in chosen for path in self.files[number]]

    @property
    def all(self) -> list[Path]:
        return self[tuple(self.files)]


@dataclass(frozen=True)
class Site:
    """A PACS and a node that know each other."""

    orthanc: Orthanc
    node: RunningNode
    ledger: Ledger
    folder: Path

    def study(self, seed: str) -> Study:
        """Make a head with three dark spots: magnitude 8, phase 9, mIP 10, SWI 11."""
        swi, phase = small_head()
        patient = Patient(seed=seed, patient_id=f"P-{seed}")
        datasets = siemens_swi(swi, phase, swi, patient=patient, matrix=affine(spacing=SPACING))
        files: dict[int, list[Path]] = {}
        for path, ds in zip(write(datasets, self.folder / seed, names="{n:04d}.dcm"), datasets, strict=True):
            files.setdefault(int(ds.SeriesNumber), []).append(path)
        return Study(patient.study_uid, files)

    def send(self, files: Sequence[Path], calling: str = "MR1") -> None:
        """Send over one association, as modality `calling`."""
        outgoing = [one for path in files if (one := read_outgoing(path)) is not None]
        peer = Peer(AE_TITLE, "127.0.0.1", self.node.dicom_port)
        assert all(sent.accepted for sent in send(outgoing, peer, calling, timeout_s=30))

    def at_once(self, *batches: tuple[Sequence[Path], str]) -> None:
        """Send several batches at the same time, each over an association of its own."""
        with ThreadPoolExecutor(len(batches)) as pool:
            list(pool.map(lambda batch: self.send(*batch), batches))

    def job(self, study: Study, state: JobState = JobState.DELIVERED, number: int = 1) -> Job:
        """The study's last job, once there are `number` of them and it is in `state`."""

        def there() -> Job | None:
            jobs = self.ledger.jobs_of_study(study.uid)
            if len(jobs) < number:
                return None
            newest = max(jobs, key=lambda job: job.id)
            assert newest.state == state or newest.state not in (JobState.FAILED, JobState.DELIVERED), newest.why
            return newest if newest.state == state else None

        log = self.node.data / "node.out"
        found: Job = wait_until(there, 90, self.node.process, log)
        return found

    def results(self, study: Study) -> list[Dataset]:
        """What the PACS holds of the study besides images."""
        held = [dcmread(io.BytesIO(file), stop_before_pixels=True) for file in self.orthanc.instances(study.uid)]
        return [ds for ds in held if ds.SOPClassUID != IMAGE]

    def reports(self, study: Study) -> list[Dataset]:
        return [ds for ds in self.results(study) if ds.SOPClassUID == SR]

    def assert_right_and_once(self, study: Study) -> Job:
        """One job on SWI, phase and magnitude; one report, with the three lesions, of this study alone."""
        job = self.job(study)
        assert self.ledger.jobs_of_study(study.uid) == [job]
        series = {one.series_number: one.series_instance_uid for one in self.ledger.series(study.uid)}
        assert (job.swi_series_uid, job.phase_series_uid, job.magnitude_series_uid) == (
            series[11],
            series[9],
            series[8],
        )
        findings = self.ledger.findings(job.id)
        assert findings is not None
        assert findings["counts"]["total"] == len(BLEEDS)
        assert job.warnings == ()
        assert sorted(ds.Modality for ds in self.results(study)) == ["OT", "SEG", "SR"]
        return job


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("settling")
    port = free_port()
    with (
        run_orthanc(folder / "pacs", node=(AE_TITLE, port)) as orthanc,
        run_node(
            folder / "node",
            {"pacs": (Orthanc.ae_title, orthanc.dicom_port)},
            dicom_port=port,
            SETTLING__LIMIT_S="8",  # Orthanc holds an association open for 5 s after its last image
        ) as node,
    ):
        ledger = Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")
        try:
            yield Site(orthanc, node, ledger, folder)
        finally:
            ledger.close()


def test_two_studies_interleaved_over_several_associations(site: Site) -> None:
    one, two = site.study("one"), site.study("two")
    mixed = [path for pair in zip(one.all, two.all, strict=True) for path in pair]
    shuffled = [mixed[n] for n in np.random.default_rng(1).permutation(len(mixed))]
    site.at_once(*((shuffled[n::3], f"MR{n}") for n in range(3)))
    jobs = [site.assert_right_and_once(study) for study in (one, two)]
    assert jobs[0].key != jobs[1].key


def test_one_study_over_two_modalities_and_sent_again(site: Site) -> None:
    study = site.study("two-modalities")
    site.at_once((study[(11, 10)], "MR1"), (study[(8, 9)], "WORKSTATION"))
    job = site.assert_right_and_once(study)
    site.send(study.all)
    site.send(study.all, "MR2")
    wait_until(lambda: not site.ledger.series_receiving() and not site.ledger.studies_ready(), 30)
    assert site.assert_right_and_once(study) == job


def test_the_same_study_from_the_modality_and_from_the_pacs_at_once(site: Site) -> None:
    study = site.study("two-senders")
    site.orthanc.upload(*study.all)
    query = {"Level": "Study", "Query": {"StudyInstanceUID": study.uid}}
    found = site.orthanc.http.post("/tools/find", json=query).json()
    route = {"Resources": found, "Synchronous": True}

    def from_pacs() -> dict[str, int]:
        answer: dict[str, int] = site.orthanc.http.post("/modalities/cmbnode/store", json=route).json()
        return answer

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(from_pacs)
        site.send(study.all)
    assert answer.result()["FailedInstancesCount"] == 0
    site.assert_right_and_once(study)


def test_a_slice_that_is_late_but_in_time_is_waited_for(site: Site) -> None:
    study = site.study("late")
    late = study[11][10]
    site.send([path for path in study.all if path != late])
    wait_until(lambda: len(site.ledger.series_receiving()) == 1, 30)  # the others have settled: its gap is seen
    assert site.ledger.jobs_of_study(study.uid) == []
    site.send([late])
    site.assert_right_and_once(study)


def test_a_slice_that_never_comes_is_named_and_when_it_comes_the_study_is_analysed(site: Site) -> None:
    study = site.study("too-late")
    late = study[11][10]
    site.send([path for path in study.all if path != late])
    failed = site.job(study, JobState.FAILED)
    assert "1 slice is missing between instance 10" in failed.why
    assert any("may be incomplete" in warning for warning in failed.warnings)
    site.send([late])
    job = site.job(study, number=2)
    assert job.supersedes == failed.id
    assert "PredecessorDocumentsSequence" not in site.reports(study)[0]  # nobody has seen another


def test_without_swi_it_is_computed_and_the_report_says_so(site: Site) -> None:
    study = site.study("computed")
    site.send(study[(8, 9)])
    job = site.job(study)
    assert job.swi_series_uid is None
    assert (site.ledger.findings(job.id) or {})["counts"]["total"] == len(BLEEDS)
    (report,) = site.reports(study)
    said = " ".join(str(element.value) for element in report.iterall() if element.keyword == "TextValue")
    assert "the SWI was computed from magnitude and phase" in said
    assert "paramagnetic blood is positive" in said


def test_a_result_that_a_later_one_replaces_is_named_in_the_report_and_on_the_page(site: Site) -> None:
    study = site.study("superseded")
    site.send([path for path in study.all if path not in study[9]])
    first = site.job(study)
    warnings = (site.ledger.findings(first.id) or {})["quality"]["warnings"]
    assert any("analysed without phase (no phase in the study)" in warning for warning in warnings)
    (before,) = site.reports(study)
    site.send(study[9])
    second = site.job(study, number=2)
    assert (second.supersedes, site.ledger.job(first.id).superseded_by) == (first.id, second.id)
    (after,) = [ds for ds in site.reports(study) if ds.SOPInstanceUID != before.SOPInstanceUID]
    (item,) = after.PredecessorDocumentsSequence
    referenced = item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == before.SOPInstanceUID
    page = httpx.get(f"http://127.0.0.1:{site.node.http_port}/studies/{study.uid}", trust_env=False).text
    assert f"Job {second.id} supersedes job {first.id} (3 marked)" in page
    assert f"superseded by job {second.id}" in page

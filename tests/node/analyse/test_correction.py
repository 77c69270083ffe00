"""Corrections with a real ledger, archive and pipeline: opened, applied by a worker, corrected again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.analyse.analysis import AnalysisContext, AnalysisResult, AnalysisRunner, run_pipeline
from node.analyse.comparison import REFERENCE, Comparison
from node.analyse.correction import earlier_results, open_correction, run_correction
from node.analyse.replacement import replaced_result
from node.archive import Archive
from node.cli import main
from node.commands.options import actor
from node.ledger import AddedMicrobleed, Correction, Job, JobState, Ledger, LesionVerdict
from node.ledger.access_records import AuditAction
from node.roles import UserRole
from pipeline.change import ChangeParameters, Prior, ReferenceImage
from pipeline.errors import InputError
from pipeline.findings import read_findings
from pipeline.results import write_results
from tests.integration.killable_node import make_study
from tests.node.jobs import QUICK, job_on

pytestmark = pytest.mark.slow

PLAIN = (54.0, 86.4, 16.0)
"""Patient coordinates of plain brain in the study of `make_study`, from its first voxel."""
ORIGIN = (-10.0, -12.0, 5.0)


class Node:
    """A ledger, an archive and a worker on one study."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(folder / "data")
        self.ledger = Ledger(f"sqlite:///{folder / 'data' / 'ledger.sqlite3'}")
        self.ledger.upgrade()
        self.study, paths = make_study(folder / "images", "corrected")
        self.job = self.work(job_on(self.study, paths, self.ledger, self.archive))

    def work(self, job: Job) -> Job:
        """Do what a worker does."""
        done = AnalysisRunner(self.ledger, self.archive, QUICK, "worker", self._run).analyse_next()
        assert done is not None
        assert done.state == JobState.DELIVERED, done.why  # there is no destination
        return done

    def _run(self, job: Job, paths: list[Path], progress: Any) -> AnalysisResult:
        replaces = replaced_result(self.ledger, job)
        context = AnalysisContext(job, paths, job.created_at, device="cpu", replaces=replaces)
        if job.correction is None:
            return run_pipeline(context, progress)
        return run_correction(context, earlier_results(self.ledger, self.archive, job), progress)

    def open(self, job: Job, correction: Correction) -> Job:
        return open_correction(self.ledger, self.archive, job.id, correction, "ada")

    def document(self, job: Job) -> dict[str, Any]:
        document = self.ledger.findings(job.id)
        assert document is not None
        return document

    def report(self, job: Job) -> Any:
        (path,) = [result.path for result in self.ledger.results(job.id) if result.kind == "sr"]
        return dcmread(self.archive.path(path))


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one analysed study; tests work on copies."""
    folder = tmp_path_factory.mktemp("analysed")
    Node(folder).ledger.close()
    return folder


@pytest.fixture
def node(analysed: Path, tmp_path: Path) -> Iterator[Node]:
    copy = tmp_path / "copy"
    shutil.copytree(analysed, copy)
    node = Node.__new__(Node)
    node.archive, node.ledger = Archive(copy / "data"), Ledger(f"sqlite:///{copy / 'data' / 'ledger.sqlite3'}")
    (node.job,) = [summary.job for summary in node.ledger.jobs()]
    node.study = node.job.study_instance_uid
    yield node
    node.ledger.close()


def correction(node: Node, *, by: str = "Reader^Ada", reject: int = 0, add: bool = False) -> Correction:
    lesions = node.document(node.job)["lesions"]
    verdicts = tuple(LesionVerdict(lesion["tracking_uid"], False) for lesion in lesions[:reject])
    point = tuple(o + p for o, p in zip(ORIGIN, PLAIN, strict=True))
    added = (AddedMicrobleed((point[0], point[1], point[2]), "possible"),) if add else ()
    return Correction(by, "General Hospital", verdicts, added, "looked at twice")


def test_a_corrected_result_has_what_the_reader_said(node: Node) -> None:
    before = node.document(node.job)
    job = node.work(node.open(node.job, correction(node, reject=1, add=True)))
    document = node.document(job)
    first, *others = before["lesions"]
    *kept, new = document["lesions"]
    assert [lesion["tracking_uid"] for lesion in kept] == [lesion["tracking_uid"] for lesion in others]
    assert [lesion["tracking_uid"] for lesion in document["rejected"]] == [first["tracking_uid"]]
    assert (new["origin"], new["certainty"]) == ("added", "possible")
    assert document["counts"]["total"] == len(before["lesions"])
    assert document["verification"]["observer"] == "Reader^Ada"
    assert document["verification"]["comment"] == "looked at twice"
    assert datetime.fromisoformat(document["verification"]["at"]) == job.created_at


def test_the_report_is_verified_and_names_who_and_for_whom(node: Node) -> None:
    job = node.work(node.open(node.job, correction(node, reject=1)))
    report = node.report(job)
    (observer,) = report.VerifyingObserverSequence
    assert report.VerificationFlag == "VERIFIED"
    assert str(observer.VerifyingObserverName) == "Reader^Ada"
    assert observer.VerifyingOrganization == "General Hospital"
    assert report.SOPInstanceUID != node.report(node.job).SOPInstanceUID
    segmentation = dcmread(node.archive.outbox(job.id) / "seg.dcm")
    assert len(segmentation.SegmentSequence) == node.document(job)["counts"]["total"]


def test_a_confirmation_is_a_verified_report_of_the_same_bleeds(node: Node) -> None:
    job = node.work(node.open(node.job, correction(node)))
    assert node.document(job)["lesions"] == node.document(node.job)["lesions"]
    assert node.document(job)["rejected"] == []
    assert node.report(job).VerificationFlag == "VERIFIED"
    assert node.report(node.job).VerificationFlag == "UNVERIFIED"


def test_what_changed_since_the_earlier_study_is_told_anew(node: Node) -> None:
    """Against its own images as the earlier study: a bleed that the reader adds is new, a rejected one not gone."""
    job = node.open(node.job, correction(node, reject=1, add=True))
    reference = ReferenceImage.from_bytes((node.archive.outbox(node.job.id) / REFERENCE).read_bytes())
    earlier = Prior(read_findings(node.document(node.job)), reference, "1.2.3", "20250101")
    context = AnalysisContext(
        job,
        [node.archive.path(path) for path in node.ledger.job_paths(job.id)],
        job.created_at,
        comparison=Comparison(ChangeParameters(), earlier, "key", reference.to_bytes()),
    )
    outcome = run_correction(context, earlier_results(node.ledger, node.archive, job), lambda _stage: None)
    change = outcome.findings.change
    assert change is not None
    assert change.assessed, change.why
    rejected = outcome.findings.rejected[0].tracking_uid
    assert [lesion.trend for lesion in outcome.findings.lesions] == ["stable", "stable", "new"]
    assert (change.new, change.stable, change.no_longer_seen) == (1, 2, ())
    assert [lesion.tracking_uid for lesion in change.unclear] == [rejected]
    assert outcome.kept[REFERENCE] == reference.to_bytes()  # a later study is compared with what the reader left


def test_a_worker_that_dies_midway_leaves_a_correction_that_another_does_alike(node: Node, tmp_path: Path) -> None:
    job = node.open(node.job, correction(node, reject=1, add=True))
    inputs = [node.archive.path(path) for path in node.ledger.job_paths(job.id)]
    claimed = node.ledger.claim_job(job.id, "doomed", QUICK.lease_s)
    assert claimed is not None
    doomed = node._run(claimed, inputs, lambda _stage: None)
    node.ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), QUICK.max_attempts)
    done = node.work(job)
    assert done.attempts == 1  # a worker that dies costs none
    for kind, path in write_results(doomed.objects, tmp_path / "doomed").items():
        assert (node.archive.outbox(job.id) / f"{kind}.dcm").read_bytes() == path.read_bytes()


def test_a_correction_of_a_correction_can_undo_it(node: Node) -> None:
    first = node.document(node.job)["lesions"][0]["tracking_uid"]
    second = node.work(node.open(node.job, correction(node, reject=1, add=True)))
    added = node.document(second)["lesions"][-1]["tracking_uid"]
    undo = Correction("Other^Bob", "Clinic", (LesionVerdict(first, True), LesionVerdict(added, False)))
    third = node.work(node.open(second, undo))
    assert node.document(third)["lesions"] == node.document(node.job)["lesions"]
    assert node.document(third)["rejected"] == []
    assert node.document(third)["quality"]["warnings"] == node.document(node.job)["quality"]["warnings"]


def test_nothing_is_opened_when_a_file_is_gone(node: Node) -> None:
    segmentation = node.archive.outbox(node.job.id) / "seg.dcm"
    segmentation.rename(segmentation.with_suffix(".away"))
    with pytest.raises(InputError, match=r"files are no longer in the archive, such as seg\.dcm"):
        node.open(node.job, correction(node))
    assert node.ledger.jobs_of_study(node.study) == [node.job]


def test_nothing_is_opened_when_an_added_bleed_lies_outside(node: Node) -> None:
    outside = Correction("Reader", "Hospital", (), (AddedMicrobleed((500.0, 0.0, 0.0)),))
    with pytest.raises(InputError, match=r"500\.0, 0\.0, 0\.0 mm \(LPS\) is outside the images"):
        node.open(node.job, outside)
    assert node.ledger.jobs_of_study(node.study) == [node.job]


def test_the_images_of_a_correction_must_be_those_of_its_job(node: Node) -> None:
    job = node.open(node.job, correction(node))
    with pytest.raises(InputError, match="its SWI series is no longer in the archive"):
        node._run(job, [], lambda _stage: None)
    paths = [node.archive.path(path) for path in node.ledger.job_paths(job.id)]
    context = AnalysisContext(node.job, paths, job.created_at)
    earlier = earlier_results(node.ledger, node.archive, job)
    with pytest.raises(InputError, match="it is not a correction"):
        run_correction(context, earlier, lambda _stage: None)


def test_a_correction_does_not_rest_on_a_damaged_segmentation(node: Node) -> None:
    segmentation = node.archive.outbox(node.job.id) / "seg.dcm"
    content = bytearray(segmentation.read_bytes())
    content[-1] ^= 1
    segmentation.write_bytes(content)
    job = node.open(node.job, correction(node))
    AnalysisRunner(node.ledger, node.archive, QUICK, "worker", node._run).analyse_next()
    failed = node.ledger.job(job.id)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)
    assert "seg.dcm: the content of the file has changed" in failed.why


def command(node: Node, *words: str) -> int:
    who = ("--observer", "Reader^Ada", "--organisation", "General Hospital", "--data", str(node.archive.root))
    return main(["correct", str(node.job.id), *who, *words])


def test_a_result_is_corrected_from_the_command_line(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    point = ",".join(str(o + p) for o, p in zip(ORIGIN, PLAIN, strict=True))
    more = ("--possible", "1", "--comment", "by phone")
    assert command(node, "--reject", "2,3", "--add", f"{point},possible", *more) == 0
    (job,) = node.ledger.queued_jobs()
    assert (
        capsys.readouterr().out
        == f"job {job.id} corrects job {node.job.id}; the running node will write the verified result\n"
    )
    assert job.correction is not None
    lesions = {lesion["id"]: lesion["tracking_uid"] for lesion in node.document(node.job)["lesions"]}
    assert {v.tracking_uid: v.accepted for v in job.correction.verdicts} == {lesions[2]: False, lesions[3]: False}
    assert [(c.tracking_uid, c.certainty) for c in job.correction.certainties] == [(lesions[1], "possible")]
    assert [a.certainty for a in job.correction.added] == ["possible"]
    assert job.correction.comment == f"by phone (entered on the command line by {actor()})"
    assert node.ledger.history("job", job.id)[0].actor == actor()
    (entry,) = node.ledger.audit()
    assert (entry.user_name, entry.action, entry.study_instance_uid) == (actor(), AuditAction.CORRECTION, node.study)


@pytest.mark.parametrize("name", ["Reader^Ada", "Ada Reader", "Dr. Ada Reader", "reader", "READER, ADA, MD", "ada.r"])
def test_the_command_line_verifies_nothing_in_the_name_of_a_user_of_the_worklist(
    node: Node, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    node.ledger.add_account("ada.r", "Prof. Ada Reader", UserRole.READER, "a hash", actor="test")
    assert command(node, "--observer", name) == 2
    assert "who verifies results by signing in" in capsys.readouterr().err
    assert node.ledger.jobs_of_study(node.study) == [node.job]


def test_the_command_line_verifies_in_the_name_of_someone_else(node: Node) -> None:
    node.ledger.add_account("ada", "", UserRole.READER, "a hash", actor="test")
    assert command(node, "--observer", "Byron^Ada") == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--reject", "9"), "it has no microbleed 9; its numbers are 1, 2, 3"),
        (("--reject", "two"), "--reject 'two' is not a list of numbers"),
        (("--add", "1,2"), "--add '1,2' is not a place"),
        (("--add", "1,2,3,perhaps"), "is not a place"),
        (("--add", "900,0,0"), "900.0, 0.0, 0.0 mm (LPS) is outside the images"),
        (("--reject", "1", "--accept", "1"), "a microbleed has two verdicts"),
        (("--definite", "7"), "it has no microbleed 7; its numbers are 1, 2, 3"),
        (("--definite", "1", "--possible", "2,1"), "a microbleed has two certainties"),
    ],
)
def test_a_slip_on_the_command_line_is_told_in_one_line_and_opens_nothing(
    node: Node, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(node, *words) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert node.ledger.jobs_of_study(node.study) == [node.job]

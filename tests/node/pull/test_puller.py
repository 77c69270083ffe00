"""New studies come from a real PACS by every way, once, and are treated like those that are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from structlog.testing import capture_logs

from node.ledger import Pull, PullState
from node.pull.puller import Puller, SourcePuller
from node.pull.search import new_studies
from node.retrieve import open_source
from node.settings.pull import PullSettings
from tests.dicom_factory import encode, write
from tests.node.priors.site import Site, running_pacs, running_site, study, uid_of
from tests.node.receiving import send
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

TODAY = f"{date.today():%Y%m%d}"
NEW = study("new", TODAY)
OLD = study("old", f"{date.today() - timedelta(days=40):%Y%m%d}")
WAYS = pytest.mark.parametrize("way", ["c-move", "c-get", "dicomweb"])


def knee() -> list[Dataset]:
    images = study("knee", TODAY)
    for image in images:
        image.SeriesDescription = image.ProtocolName = "pd_tse_sag"
    return images


KNEE = knee()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, int]]:
    with running_pacs(tmp_path_factory.mktemp("pacs"), NEW, OLD, KNEE) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, pacs: tuple[Orthanc, int]) -> Iterator[Site]:
    with running_site(tmp_path, pacs[1]) as site:
        yield site


def settings_of(orthanc: Orthanc, way: str, **more: Any) -> PullSettings:
    given: dict[str, Any] = {"quiet_s": 0, "every_s": 3600, **more}
    if way == "dicomweb":
        return PullSettings(dicomweb={"url": f"{str(orthanc.http.base_url).rstrip('/')}/dicom-web"}, **given)  # type: ignore[arg-type]
    dicom = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port, "retrieve": way}
    return PullSettings(dicom=dicom, **given)  # type: ignore[arg-type]


def puller(site: Site, settings: PullSettings, owner: str = "puller", **more: Any) -> SourcePuller:
    update = {"pull": {"pacs": settings}, **more}
    everything = site.settings.model_copy(update=update)
    source = open_source(settings, everything, site.ledger, site.archive)
    return SourcePuller(everything, site.ledger, "pacs", source, owner)


def work(one: SourcePuller) -> dict[str, Pull]:
    """Work until nothing is to be done; the studies that were found, by their UID."""
    while one.work():
        pass
    return {pull.study_instance_uid: pull for pull in one.ledger.pulls()}


@WAYS
def test_a_new_study_with_an_swi_is_fetched_once_and_treated_as_sent(
    site: Site, pacs: tuple[Orthanc, int], way: str
) -> None:
    found = work(puller(site, settings_of(pacs[0], way)))
    assert set(found) == {uid_of(NEW), uid_of(KNEE)}
    assert (found[uid_of(NEW)].state, found[uid_of(NEW)].counts.completed) == (PullState.FETCHED, len(NEW))
    assert (found[uid_of(KNEE)].state, found[uid_of(KNEE)].why) == (
        PullState.IGNORED,
        "no series has the name of an SWI",
    )
    assert site.images(uid_of(NEW)) == len(NEW)
    assert not site.ledger.study(uid_of(NEW)).fetched
    receiving = site.ledger.series_receiving()
    assert len(receiving) == 3
    assert all(one.last_ended_released and not one.open_associations for one in receiving)
    assert puller(site, settings_of(pacs[0], way), owner="another").fetch_next() is False


def test_the_settings_say_which_studies_are_fetched(site: Site, pacs: tuple[Orthanc, int]) -> None:
    mine = settings_of(pacs[0], "c-get", days=60, series_description="^pd_", max_instances=8)
    found = work(puller(site, mine))
    assert {uid: pull.state for uid, pull in found.items()} == {
        uid_of(NEW): PullState.IGNORED,
        uid_of(OLD): PullState.IGNORED,
        uid_of(KNEE): PullState.IGNORED,
    }
    assert found[uid_of(KNEE)].why == "it has 9 MR images, more than pull.pacs.max_instances"
    closed = (datetime.now() + timedelta(hours=2)).strftime("%H:%M-") + (datetime.now() + timedelta(hours=3)).strftime(
        "%H:%M"
    )
    assert not puller(site, settings_of(pacs[0], "c-get", hours=closed)).work()


def test_a_study_that_was_routed_too_is_not_fetched(site: Site, pacs: tuple[Orthanc, int]) -> None:
    for answer in send(site.port, *[encode(dataset) for dataset in NEW]):
        assert answer.Status == 0
    found = work(puller(site, settings_of(pacs[0], "c-move")))
    assert found[uid_of(NEW)].why == "the node has its images already"
    assert found[uid_of(NEW)].counts.completed == 0


@WAYS
def test_a_study_that_came_for_comparison_only_is_fetched_again_as_a_new_one(
    site: Site, pacs: tuple[Orthanc, int], way: str
) -> None:
    later = site.receives(study("later", f"{date.today() + timedelta(days=1):%Y%m%d}"))
    source = site.dicomweb(f"{str(pacs[0].http.base_url).rstrip('/')}/dicom-web")
    site.ask(source, later)
    assert site.ledger.study(uid_of(NEW)).fetched
    work(puller(site, settings_of(pacs[0], way)))
    assert not site.ledger.study(uid_of(NEW)).fetched


def test_what_a_killed_process_held_is_fetched_by_another(site: Site, pacs: tuple[Orthanc, int]) -> None:
    mine = settings_of(pacs[0], "c-get")
    assert puller(site, mine).query()
    assert site.ledger.claim_pull("pacs", "killed", 0) is not None
    assert site.ledger.claim_pull("pacs", "killed", 0) is not None
    assert work(puller(site, mine))[uid_of(NEW)].state is PullState.FETCHING
    assert len(site.ledger.expire_pulls(datetime.now(UTC))) == 2
    assert work(puller(site, mine))[uid_of(NEW)].state is PullState.FETCHED


def test_a_study_is_fetched_again_when_it_has_more_images_but_not_when_it_has_results(tmp_path: Path) -> None:
    port = free_port()
    images, late = NEW[:-1], NEW[-1]
    report = study("new", TODAY)[0]
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    report.SeriesInstanceUID, report.Modality = "1.2.3", "OT"
    with run_orthanc(tmp_path / "pacs", node=("CMBNODE", port)) as orthanc, running_site(tmp_path / "n", port) as site:
        mine = puller(site, settings_of(orthanc, "c-move", every_s=1, quiet_s=0.2))

        def go_on(state: PullState, number: int, why: str = "") -> bool:
            """Work for some time, until the study is in this state, and has this number of images."""
            mine.work()
            pulls = site.ledger.pulls()
            return bool(pulls) and (pulls[0].state, pulls[0].counted, pulls[0].why) == (state, number, why)

        orthanc.upload(*write(images, tmp_path / "first", names="{series}-{n}.dcm"))
        assert wait_for(lambda: go_on(PullState.FETCHED, len(images)), 30)
        orthanc.upload(*write([report], tmp_path / "second", names="{series}-{n}.dcm"))
        assert wait_for(lambda: go_on(PullState.FETCHED, len(images) + 1, "the node has its images already"), 30)
        orthanc.upload(*write([late], tmp_path / "third", names="{series}-{n}.dcm"))
        assert wait_for(lambda: go_on(PullState.FETCHED, len(images) + 2), 30)
        assert site.images(uid_of(NEW)) == len(NEW)
        whys = [change.why for change in site.ledger.history("pull", uid_of(NEW))]
        assert f"it has {len(images) + 2} images, and had {len(images) + 1}" in whys


@WAYS
def test_a_pacs_that_is_down_is_queried_again_and_the_log_says_so_once(
    site: Site, pacs: tuple[Orthanc, int], way: str
) -> None:
    up = settings_of(pacs[0], way)
    down = (
        up.model_copy(update={"dicomweb": up.dicomweb.model_copy(update={"url": f"http://127.0.0.1:{free_port()}/x"})})
        if up.dicomweb is not None
        else up.model_copy(update={"dicom": up.dicom.model_copy(update={"port": free_port()})})  # type: ignore[union-attr]
    )
    with capture_logs() as log:
        for _ in range(2):
            assert puller(site, down).query()
            time.sleep(0.02)
        record = site.ledger.pull_sources()["pacs"]
        assert record.attempts == 2
        assert "127.0.0.1" in record.why
        assert puller(site, up).query()
    assert [line["event"] for line in log if line["event"] != "new studies"] == [
        "the PACS cannot be queried for new studies; it is tried again",
        "the PACS answers queries for new studies again",
    ]
    assert site.ledger.pull_sources()["pacs"].why == ""


def test_a_study_that_cannot_be_fetched_is_tried_again_then_given_up(site: Site, pacs: tuple[Orthanc, int]) -> None:
    """The PACS knows no node of this name, and so cannot send to it."""
    mine = settings_of(pacs[0], "c-move")
    assert puller(site, mine).query()
    stranger = puller(site, mine, ae_title="NOBODY")
    stranger.fetch_next(), stranger.fetch_next()
    pull = site.ledger.pull(uid_of(NEW))
    assert pull is not None
    assert (pull.state, pull.attempts) == (PullState.WAITING, 1)
    assert "does it know NOBODY?" in pull.why
    time.sleep(0.05)
    queue = site.settings.queue.model_copy(update={"retry_for_s": 1e-9})
    impatient = puller(site, mine, ae_title="NOBODY", queue=queue)
    impatient.fetch_next(), impatient.fetch_next()
    pull = site.ledger.pull(uid_of(NEW))
    assert pull is not None
    assert pull.state is PullState.FAILED
    site.ledger.retry_pull(uid_of(NEW), "ada")
    assert work(puller(site, mine))[uid_of(NEW)].state is PullState.FETCHED


def test_images_that_go_to_another_node_are_missed(tmp_path: Path, pacs: tuple[Orthanc, int], site: Site) -> None:
    """The PACS has this node's AE title, with the address of another one."""
    with running_site(tmp_path / "elsewhere") as elsewhere:
        mine = puller(elsewhere, settings_of(pacs[0], "c-move"))
        assert mine.query()
        mine.fetch_next(), mine.fetch_next()
        pull = elsewhere.ledger.pull(uid_of(NEW))
    assert pull is not None
    assert pull.state is PullState.WAITING
    assert "none arrived; is this node registered there with the right address?" in pull.why


def test_a_pacs_that_returns_only_a_few_studies_is_asked_for_shorter_times(tmp_path: Path) -> None:
    """By DICOMweb, Orthanc does not say that it returns only a part."""
    image = study("many", TODAY)[0]
    known = ("CMBNODE", free_port())
    limited = run_orthanc(tmp_path / "pacs", node=known, LimitFindResults=100)
    with limited as orthanc, running_site(tmp_path / "node") as site:
        for number in range(105):
            image.StudyInstanceUID, image.StudyTime = f"1.2.{number}", f"{number % 24:02d}{number % 60:02d}00"
            image.SeriesInstanceUID, image.SOPInstanceUID = f"1.2.{number}.1", f"1.2.{number}.1.1"
            orthanc.upload(*write([image], tmp_path / "files", names=f"{number}.dcm"))
        for way in ("c-get", "dicomweb"):
            one = puller(site, settings_of(orthanc, way, days=0))
            found = new_studies(one.source, one.pacs, date.today())
            assert (len(found.studies), found.note) == (105, "")


def test_the_threads_of_the_node_do_this_and_stop(site: Site, pacs: tuple[Orthanc, int]) -> None:
    settings = site.settings.model_copy(update={"pull": {"pacs": settings_of(pacs[0], "c-get")}})
    with Puller(settings, site.ledger, site.archive) as running:
        assert wait_for(lambda: site.ledger.images_received(uid_of(NEW)), 30)
        assert running.works()
        assert "pull-pacs" in {thread.name for thread in threading.enumerate()}
    assert "pull-pacs" not in {thread.name for thread in threading.enumerate()}

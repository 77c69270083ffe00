"""Earlier studies come from a real PACS, by C-MOVE or by WADO-RS."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.ledger import PriorState
from node.retrieve.source import SourceError, StudySource, TransferLimits
from tests.dicom_factory import encode
from tests.node.receiving import send
from tests.orthanc import Orthanc
from tests.ports import free_port

from .site import Site, running_pacs, running_site, study, uid_of

pytestmark = pytest.mark.integration

PRIOR = study("prior", "20240503")
OLDER = study("older", "20200110")
STRANGER = study("stranger", "20240601", birth_date="19610101")
AFTER = study("after", "20270101")
WAYS = pytest.mark.parametrize("way", ["c-move", "c-get", "dicomweb"])


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, int]]:
    with running_pacs(tmp_path_factory.mktemp("pacs"), PRIOR, OLDER, STRANGER, AFTER) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, pacs: tuple[Orthanc, int]) -> Iterator[Site]:
    with running_site(tmp_path, pacs[1]) as site:
        yield site


@dataclass(frozen=True)
class Ways:
    site: Site
    orthanc: Orthanc

    def __call__(self, way: str) -> StudySource:
        if way != "dicomweb":
            return self.site.dicom(self.orthanc.dicom_port, retrieve=way)
        return self.site.dicomweb(f"{str(self.orthanc.http.base_url).rstrip('/')}/dicom-web")


@pytest.fixture
def source(site: Site, pacs: tuple[Orthanc, int]) -> Ways:
    return Ways(site, pacs[0])


@WAYS
def test_the_latest_earlier_study_of_the_patient_is_fetched_for_comparison_only(
    site: Site, source: Callable[[str], StudySource], way: str
) -> None:
    uid = site.receives(study("present", "20260102"))
    request = site.ask(source(way), uid)
    assert request.state is PriorState.FETCHED
    assert request.why == f"the study of 2024-05-03 was fetched ({len(PRIOR)} images)"
    assert site.images(uid_of(PRIOR)) == len(PRIOR)
    assert site.ledger.study(uid_of(PRIOR)).fetched
    assert not site.ledger.study(uid).fetched
    (fetch,) = site.ledger.prior_fetches(uid)
    assert fetch.state is PriorState.FETCHED
    assert (fetch.counts.completed, fetch.counts.failed, fetch.counts.warnings) == (len(PRIOR), 0, 0)
    states = [change.to_state for change in site.ledger.history("prior", uid)]
    assert (states[0], states[1], states[-1]) == ("waiting", "asked", "fetched")
    receiving = [r for r in site.ledger.series_receiving() if r.study_instance_uid == uid_of(PRIOR)]
    assert receiving
    assert all(one.last_ended_released and not one.open_associations for one in receiving)


@WAYS
def test_a_patient_without_earlier_studies_has_none(site: Site, source: Callable[[str], StudySource], way: str) -> None:
    uid = site.receives(study("alone", "20260102", patient_id="P-ALONE"))
    request = site.ask(source(way), uid)
    assert (request.state, request.why) == (PriorState.NONE, "no MR prior of the patient in the PACS")


@WAYS
def test_another_patient_of_the_same_id_is_refused(site: Site, source: Callable[[str], StudySource], way: str) -> None:
    uid = site.receives(study("namesake", "20260102", birth_date="19770707"))
    request = site.ask(source(way), uid)
    assert request.state is PriorState.NONE
    assert "the same patient ID, but another birth date" in request.why
    assert site.ledger.prior_fetches(uid) == []


@WAYS
def test_a_study_that_is_sent_after_it_was_fetched_is_treated_as_sent(
    site: Site, source: Callable[[str], StudySource], way: str
) -> None:
    site.ask(source(way), site.receives(study("present", "20260102")))
    before = site.ledger.study(uid_of(PRIOR))
    for answer in send(site.port, encode(PRIOR[0]), calling="PACS"):
        assert answer.Status in (0x0000, 0xB000)
    after = site.ledger.study(uid_of(PRIOR))
    assert not after.fetched
    assert after.revision > before.revision
    assert "sent by PACS" in [change.why for change in site.ledger.history("study", uid_of(PRIOR))]


@WAYS
def test_what_an_earlier_attempt_left_half_fetched_is_fetched_again(
    site: Site, source: Callable[[str], StudySource], way: str
) -> None:
    """As after kill -9 in the middle: the request is still held, and part of the study is here."""
    uid = site.receives(study("present", "20260102"))
    claimed = site.ledger.claim_prior_request("killed", 0)
    assert claimed is not None
    site.ledger.begin_prior(uid, "killed", uid_of(PRIOR), "20240503", len(PRIOR))
    assert send(site.port, encode(PRIOR[0]))[0].Status == 0
    assert site.ledger.study(uid_of(PRIOR)).fetched, "it arrives while it is fetched"
    assert site.ledger.expire_prior_requests(datetime.now(UTC), 3) == [uid]
    request = site.ask(source(way), uid)
    assert request.state is PriorState.FETCHED
    assert site.images(uid_of(PRIOR)) == len(PRIOR)
    assert site.ledger.study(uid_of(PRIOR)).fetched


def test_a_study_that_the_node_has_already_is_not_fetched(site: Site, source: Callable[[str], StudySource]) -> None:
    for answer in send(site.port, *[encode(dataset) for dataset in PRIOR]):
        assert answer.Status == 0
    request = site.ask(source("c-move"), site.receives(study("present", "20260102")))
    assert (request.state, request.why) == (PriorState.FETCHED, "the study of 2024-05-03 is already in the node")
    assert not site.ledger.study(uid_of(PRIOR)).fetched


def test_as_many_studies_are_fetched_as_the_settings_say(site: Site, source: Callable[[str], StudySource]) -> None:
    uid = site.receives(study("present", "20260102"))
    site.ask(source("c-move"), uid, max_studies=3)
    assert {one.prior_study_uid for one in site.ledger.prior_fetches(uid)} == {uid_of(PRIOR), uid_of(OLDER)}
    assert site.images(uid_of(OLDER)) == len(OLDER)


def test_a_study_that_is_too_much_or_too_old_is_not_fetched(site: Site, source: Callable[[str], StudySource]) -> None:
    uid = site.receives(study("present", "20260102"))
    request = site.ask(source("c-move"), uid, max_instances=7, max_age_days=1000)
    assert request.state is PriorState.NONE
    assert "that of 2024-05-03: it has 9 MR images, more than priors.max_instances" in request.why
    assert "2020" not in request.why


@WAYS
def test_more_images_than_the_pacs_announced_are_not_taken(
    site: Site, source: Callable[[str], StudySource], way: str
) -> None:
    bounds = TransferLimits(time.monotonic() + 60, lambda: "", 7)
    series = [one.series_instance_uid for one in source(way).series(uid_of(PRIOR))]
    assert len(series) == 3
    with pytest.raises(SourceError, match="more than 7 images") as caught:
        source(way).fetch(uid_of(PRIOR), series, bounds)
    assert caught.value.lasting


@WAYS
def test_a_pacs_that_is_down_is_asked_again_and_then_given_up(site: Site, way: str) -> None:
    uid, port = site.receives(study("present", "20260102")), free_port()
    source = site.dicom(port) if way != "dicomweb" else site.dicomweb(f"http://127.0.0.1:{port}/dicom-web")
    first = site.ask(source, uid, attempts=2)
    assert (first.state, first.attempts) == (PriorState.WAITING, 1)
    time.sleep(0.05)
    second = site.ask(source, uid, attempts=2)
    assert second.state is PriorState.FAILED
    assert str(port) in second.why


@WAYS
def test_a_pacs_that_never_answers_is_given_up(site: Site, way: str) -> None:
    uid = site.receives(study("present", "20260102"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"http://127.0.0.1:{port}/dicom-web"
        source = site.dicom(port, timeout_s=0.5) if way != "dicomweb" else site.dicomweb(url, timeout_s=0.5)
        request = site.ask(source, uid, attempts=1)
    assert request.state is PriorState.FAILED
    assert f"127.0.0.1:{port}" in request.why


def test_a_pacs_that_does_not_know_the_node_is_told_of(site: Site, pacs: tuple[Orthanc, int]) -> None:
    uid = site.receives(study("present", "20260102"))
    request = site.ask(site.dicom(pacs[0].dicom_port, calling="NOBODY"), uid, attempts=1)
    assert request.state is PriorState.FAILED
    assert "does it know NOBODY?" in request.why


def test_images_that_go_to_another_node_are_missed(tmp_path: Path, pacs: tuple[Orthanc, int], site: Site) -> None:
    """The PACS has this node's AE title, with the address of another one."""
    with running_site(tmp_path / "elsewhere") as elsewhere:
        uid = elsewhere.receives(study("present", "20260102"))
        request = elsewhere.ask(elsewhere.dicom(pacs[0].dicom_port), uid)
    assert request.state is PriorState.FAILED
    assert "none arrived; is this node registered there with the right address?" in request.why


def test_an_allow_list_admits_the_pacs_that_is_asked(tmp_path: Path, pacs: tuple[Orthanc, int]) -> None:
    asked = {"dicom": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs[0].dicom_port}}
    with running_site(tmp_path, pacs[1], priors=asked, calling_ae_titles=("MODALITY",)) as strict:
        uid = strict.receives(study("present", "20260102"))
        assert strict.ask(strict.dicom(pacs[0].dicom_port), uid).state is PriorState.FETCHED

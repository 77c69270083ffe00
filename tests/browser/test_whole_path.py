"""The whole path: two scans of a patient arrive, are read in a real Chromium, corrected, verified in a real PACS.

Three microbleeds of the second scan are new, and every way out says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from pydicom import Dataset, dcmread

from node.analyse.comparison import REFERENCE
from node.cli import main
from node.ledger import Job, Ledger
from pipeline.change import ReferenceImage
from tests.classical import quick_profile
from tests.longitudinal import Longitudinal
from tests.node.ris import Ris, ris
from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import RunningNode, run_node, wait_until
from training.fit.profile_files import write_profile

from .test_worklist_page import browser as browser
from .test_worklist_page import complaints as complaints
from .test_worklist_page import page as page

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(900)]
SLOW_MS = 300_000
"""An analysis takes its time on a busy machine."""
PRELIMINARY = "P"
"""Status of a result that no reader has verified, HL7 table 0123."""

ROUTING = """
schema = "cmb-routing/1"

[[rule]]
name = "SWI"
role = "swi"
action = "analyse"
profile = "{profile}"
"""


def strict_profile(folder: Path) -> Path:
    """The classical profile with the threshold at which it marks next to nothing else in this head."""
    return write_profile(quick_profile(thresholds={"possible": 0.7, "definite": 0.75}), folder / "frst-strict.toml")


@dataclass(frozen=True)
class Site:
    """A node that both studies of the pair are sent to, and the PACS and the RIS that its results go to."""

    pair: Longitudinal
    node: RunningNode
    pacs: Orthanc
    ris: Ris

    def send(self, folder: Path) -> None:
        sent = self.node.command("send", str(folder), f"CMBNODE@127.0.0.1:{self.node.dicom_port}")
        assert sent.returncode == 0, sent.stderr

    def job(self, study_uid: str) -> Job:
        """The detector's own, whether a reader has corrected it since or not."""
        with self.ledger() as ledger:
            return next(job for job in ledger.jobs_of_study(study_uid) if job.correction is None)

    def findings(self, study_uid: str) -> dict[str, Any]:
        with self.ledger() as ledger:
            return ledger.findings(self.job(study_uid).id) or {}

    def report(self, study_uid: str) -> Dataset:
        return dcmread(self.node.data / "outbox" / str(self.job(study_uid).id) / "sr.dcm")

    def ledger(self) -> closing[Ledger]:
        return closing(Ledger(f"sqlite:///{self.node.data / 'ledger.sqlite3'}"))


@pytest.fixture(scope="module")
def site(longitudinal: Longitudinal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    routing = folder / "routing.toml"
    routing.write_text(ROUTING.format(profile=strict_profile(folder)))
    with run_orthanc(folder / "pacs") as pacs, ris() as far_ris:
        destinations = {
            "pacs": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port},
            "ris": {"kind": "hl7", "host": "127.0.0.1", "port": far_ris.port},
        }
        with run_node(folder / "node", {}, ROUTING_FILE=str(routing), DESTINATIONS=json.dumps(destinations)) as node:
            yield Site(longitudinal, node, pacs, far_ris)


@pytest.fixture(scope="module")
def arrived(site: Site) -> Site:
    """The site once both studies have been delivered, whether the whole path has sent them already or not."""
    if not site.node.jobs():
        for scanned in (site.pair.prior, site.pair.present):
            site.send(scanned.folder)

    def delivered() -> bool:
        jobs = site.node.jobs()
        assert all(job["state"] != "failed" for job in jobs), jobs
        return len(jobs) >= 2 and all(job["state"] in ("delivered", "superseded") for job in jobs)

    wait_until(delivered, SLOW_MS / 1000, site.node.process, site.node.data / "node.out")
    return site


def reports(pacs: Orthanc, study_uid: str) -> list[Dataset]:
    """The structured reports of a study, as the PACS keeps them, the oldest first."""
    found = [dcmread(BytesIO(file)) for file in pacs.instances(study_uid, "SR")]
    return sorted(found, key=lambda ds: (ds.VerificationFlag == "VERIFIED", ds.ContentDate, ds.ContentTime))


def segments(pacs: Orthanc, study_uid: str) -> list[set[str]]:
    """Tracking UIDs of the bleeds in each segmentation of a study, the oldest first."""
    found = [dcmread(BytesIO(file)) for file in pacs.instances(study_uid, "SEG")]
    found.sort(key=lambda ds: (ds.ContentDate, ds.ContentTime))
    return [{str(segment.TrackingUID) for segment in ds.SegmentSequence} for ds in found]


def test_a_study_arrives_is_read_corrected_and_verified_in_the_pacs(
    page: Page, complaints: list[str], site: Site
) -> None:
    prior, present, pacs = site.pair.prior, site.pair.present, site.pacs
    page.goto(f"http://127.0.0.1:{site.node.http_port}/")
    expect(page.get_by_text("No studies yet")).to_be_visible()
    site.send(prior.folder)
    expect(page.locator(f"[id='study-{prior.study_uid}']")).to_be_visible(timeout=SLOW_MS)  # the row, by itself
    site.send(present.folder)  # it comes while the first is analysed
    row = page.locator(f"[id='study-{present.study_uid}']")
    expect(row).to_be_visible(timeout=SLOW_MS)
    row.click()
    expect(page.get_by_text("stable, ")).to_be_visible(timeout=SLOW_MS)  # the page follows its study to the result
    _found_as_simulated(page)
    before = wait_until(lambda: reports(pacs, present.study_uid), SLOW_MS / 1000)
    kept = _correct(page)
    expect(page.locator(".seal")).to_contain_text("Verified by Meredith Grey, Ward 3", timeout=SLOW_MS)
    expect(page.get_by_text("Results delivered")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_role("heading", name=f"{kept + 1} cerebral microbleeds")).to_be_visible()
    _verified_in_the_pacs(before, reports(pacs, present.study_uid))
    detected, verified = segments(pacs, present.study_uid)
    assert (len(detected & verified), len(verified - detected)) == (kept, 1)
    assert complaints == []


def _found_as_simulated(page: Page) -> None:
    """Three bleeds are new, two stable, and the page says so before anything is scrolled."""
    expect(page.get_by_text("Change since 2024-01-15: 3 new, 2 stable, 0 no longer seen")).to_be_in_viewport()
    expect(page.get_by_text("ARIA-H by new microbleeds: mild")).to_be_in_viewport()
    expect(page.get_by_text("More than 4 microbleeds", exact=True)).to_be_in_viewport()
    expect(page.locator("tbody[data-lesion] .trend.new")).to_have_count(3)
    expect(page.locator("tbody[data-lesion] .trend.stable")).to_have_count(2)
    page.wait_for_selector("#volumes[data-loaded]", timeout=SLOW_MS)
    assert page.locator("[data-volume]").evaluate_all("panes => panes.map(pane => pane.dataset.volume)") == [
        "swi", "phase", "mip", "prior",
    ]  # fmt: skip
    for n in range(3):  # SWI, phase and projection of the first bleed are there
        picture = page.locator("#crops img").nth(n)
        page.wait_for_function("image => image.naturalWidth === 484", arg=picture.element_handle())


def _correct(page: Page) -> int:
    """Reject the first bleed, add one in plain brain; returns how many of the detector's are kept."""
    count = page.locator("tbody[data-kept=yes]").count()
    page.keyboard.press("r")  # the first is selected
    page.locator("#volumes").get_by_label("Slice", exact=True).fill("40")
    page.keyboard.press("Enter")
    expect(page.get_by_text("40 of ")).to_be_visible()
    page.get_by_role("button", name="Add a microbleed").click()
    picture = page.locator("[data-volume=swi] .screen").bounding_box()
    assert picture is not None
    page.mouse.click(picture["x"] + picture["width"] * 0.42, picture["y"] + picture["height"] * 0.62)
    confirm = page.get_by_role("button", name="Add as possible")
    expect(confirm.or_(page.locator("tbody[data-added]"))).to_be_visible(timeout=SLOW_MS)
    if confirm.count():
        confirm.click()
    expect(page.get_by_label("Certainty of A1")).to_be_visible()
    page.get_by_label("Observer").fill("Grey^Meredith")
    page.get_by_label("Organisation").fill("Ward 3")
    page.get_by_label("Comment for the report").fill("a vein, and one that was missed")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text(f"{count - 1} of {count}")).to_be_visible()
    page.get_by_role("button", name="Send the verified result").click()
    return count - 1


def _verified_in_the_pacs(before: list[Dataset], after: list[Dataset]) -> None:
    (detected,) = before
    report = after[-1]
    assert len(after) == 2
    assert (report.VerificationFlag, detected.VerificationFlag) == ("VERIFIED", "UNVERIFIED")
    (observer,) = report.VerifyingObserverSequence
    assert (str(observer.VerifyingObserverName), observer.VerifyingOrganization) == ("Grey^Meredith", "Ward 3")
    (series,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == detected.SOPInstanceUID


def test_three_bleeds_are_new_and_two_stable(arrived: Site) -> None:
    found = arrived.findings(arrived.pair.present.study_uid)
    change = found["change"]
    assert change["assessed"], change["why"]
    assert (change["new"], change["stable"], change["no_longer_seen"]) == (3, 2, [])
    assert change["aria_h"] == "mild"
    assert change["flags"] == ["more than 4 microbleeds"]
    assert change["prior_study_instance_uid"] == arrived.pair.prior.study_uid
    assert change["prior_study_date"] == arrived.pair.prior.date
    new = np.array([lesion["centroid_lps_mm"] for lesion in found["lesions"] if lesion["trend"] == "new"])
    distance = np.linalg.norm(new[:, None] - np.array(arrived.pair.new), axis=2)
    assert (distance.min(axis=1) < 2).all()
    assert sorted(distance.argmin(axis=1)) == [0, 1, 2]
    earlier = {lesion["tracking_uid"] for lesion in arrived.findings(arrived.pair.prior.study_uid)["lesions"]}
    assert {lesion["prior_tracking_uid"] for lesion in found["lesions"] if lesion["trend"] == "stable"} == earlier


def test_the_earlier_study_waits_for_nothing_and_is_compared_with_nothing(arrived: Site) -> None:
    assert arrived.findings(arrived.pair.prior.study_uid)["change"] is None
    prior, present = arrived.job(arrived.pair.prior.study_uid), arrived.job(arrived.pair.present.study_uid)
    assert (prior.prior_job_id, present.prior_job_id) == (None, prior.id)


def test_the_report_in_the_pacs_says_so_and_names_the_earlier_one(arrived: Site) -> None:
    report, earlier = arrived.report(arrived.pair.present.study_uid), arrived.report(arrived.pair.prior.study_uid)
    assert report.SOPInstanceUID in {ds.SOPInstanceUID for ds in reports(arrived.pacs, arrived.pair.present.study_uid)}
    text = json.dumps(report.to_json_dict(suppress_invalid_tags=True)).lower()
    for said in ("3 new, 2 stable", "mild", "more than 4 microbleeds"):
        assert said in text
    (evidence,) = report.PertinentOtherEvidenceSequence
    assert evidence.StudyInstanceUID == arrived.pair.prior.study_uid
    referenced = {
        i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence
    }
    assert earlier.SOPInstanceUID in referenced


def test_the_ris_is_told_of_the_new_bleeds_and_their_grade(arrived: Site) -> None:
    said = {}
    messages = [message for message in arrived.ris.messages if message.extract_field("OBR", 1, 25) == PRELIMINARY]
    for message in messages:
        observed = {str(line[3][0][0]): str(line[5]) for line in message.segments("OBX")}
        said[message.extract_field("OBR", 1, 18)] = observed
    accession = dcmread(arrived.pair.present.files[0], stop_before_pixels=True).AccessionNumber
    present = said[accession]
    assert (present["NEW"], present["STABLE"], present["ARIA_H"]) == ("3", "2", "mild")
    assert "More than 4 microbleeds" in " ".join(present.values())
    assert len(said) == len(messages) == 2
    assert all("ARIA_H" not in observed for name, observed in said.items() if name != accession)


def test_a_reference_image_is_kept_for_the_next_time(arrived: Site) -> None:
    for scanned in (arrived.pair.prior, arrived.pair.present):
        reference = ReferenceImage.from_bytes(
            (arrived.node.data / "outbox" / str(arrived.job(scanned.study_uid).id) / REFERENCE).read_bytes()
        )
        assert reference.brain.any()
        assert reference.scan.sequence == "swi"


def test_the_command_line_answers_the_same_without_a_server(
    arrived: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior, present = str(arrived.pair.prior.folder), str(arrived.pair.present.folder)
    recipe = ("--profile", str(strict_profile(tmp_path)), "--device", "cpu", "--json")
    assert main(["detect", present, "--prior", prior, "--out", str(tmp_path / "out"), *recipe]) == 0
    alone, served = json.loads(capsys.readouterr().out), arrived.findings(arrived.pair.present.study_uid)
    for name in ("new", "stable", "aria_h", "fit", "flags", "caveats"):
        assert alone["change"][name] == served["change"][name]
    assert [lesion["trend"] for lesion in alone["lesions"]] == [lesion["trend"] for lesion in served["lesions"]]
    assert main(["detect", prior, "--prior", present, "--out", str(tmp_path / "none")]) == 2
    assert "later than" in capsys.readouterr().err

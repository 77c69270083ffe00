"""The whole path: two scans of a patient arrive, are read in a real Chromium, corrected, verified in a real PACS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pydicom import Dataset, dcmread

from tests.integration.test_longitudinal import ROUTING, strict_profile
from tests.longitudinal import Longitudinal
from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import RunningNode, run_node, wait_until

from .test_worklist_page import browser as browser
from .test_worklist_page import complaints as complaints
from .test_worklist_page import page as page

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(900)]
SLOW_MS = 300_000
"""An analysis takes its time on a busy machine."""


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with run_orthanc(tmp_path_factory.mktemp("pacs")) as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    folder = tmp_path_factory.mktemp("node")
    routing = folder / "routing.toml"
    routing.write_text(ROUTING.format(profile=strict_profile(folder)))
    where = {"pacs": (pacs.ae_title, pacs.dicom_port)}
    with run_node(folder / "data", where, ROUTING_FILE=str(routing)) as running:
        yield running


def send(node: RunningNode, folder: Path) -> subprocess.CompletedProcess[str]:
    sent = node.command("send", str(folder), f"CMBNODE@127.0.0.1:{node.dicom_port}")
    assert sent.returncode == 0, sent.stderr
    return sent


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
    page: Page, complaints: list[str], node: RunningNode, pacs: Orthanc, longitudinal: Longitudinal
) -> None:
    prior, present = longitudinal.prior, longitudinal.present
    page.goto(f"http://127.0.0.1:{node.http_port}/")
    expect(page.get_by_text("No studies yet")).to_be_visible()
    send(node, prior.folder)
    expect(page.locator(f"[id='study-{prior.study_uid}']")).to_be_visible(timeout=SLOW_MS)  # the row, by itself
    wait_until(lambda: [job for job in node.jobs() if job["state"] == "delivered"], SLOW_MS / 1000)
    send(node, present.folder)
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
    expect(page.get_by_text(f"{count - 1} unchanged")).to_be_visible()
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

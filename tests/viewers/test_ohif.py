"""OHIF opens every report and draws each microbleed where it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from pipeline.findings import Certainty
from pipeline.results import make_results, write_results
from pipeline.results.source import read_planes
from tests.browser.test_worklist_page import ARGUMENTS, CHROMIUM
from tests.orthanc import Orthanc, run_orthanc
from tests.pipeline.results.studies import CREATED, KEY, Detection, follow_up, simulate, verified
from tests.waiting import wait_for

from .ohif import ohif
from .packages import OHIF

_OWN = "viewport has been destroyed"
"""OHIF's own complaint when one series takes the place of another."""
AMBER = (255, 176, 59)
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE_MS = 120_000
"""For WebGL in software on a busy machine."""
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def address(pacs: Orthanc, viewers: Path) -> Iterator[str]:
    with ohif(viewers / "ohif" / OHIF, pacs) as at:
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = [one for one in ARGUMENTS if one != "--disable-gpu"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*arguments, *WEBGL])
        yield started
        started.close()


@pytest.fixture
def opened(pacs: Orthanc, address: str, browser: Browser, tmp_path: Path) -> Iterator[Callable[[Detection], Page]]:
    """Put a study and its results into the PACS and open it in OHIF; no script may fail."""
    context = browser.new_context(viewport={"width": 1500, "height": 950})
    errors: list[str] = []

    def open_study(detection: Detection) -> Page:
        results = write_results(make_results(detection, key=KEY, created=CREATED), tmp_path / "results")
        pacs.upload(*sorted((tmp_path / "source").iterdir()), *results.values())
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.on("pageerror", lambda error: None if _OWN in str(error) else errors.append(str(error)))
        page.goto(f"{address}/viewer?StudyInstanceUIDs={detection.findings.study_instance_uid}")
        return page

    yield open_study
    context.close()
    for study in pacs.get("/studies"):
        pacs.http.delete(f"/studies/{study}").raise_for_status()
    assert errors == []


def show(page: Page, title: str) -> None:
    """Open a series of results as a reader would."""
    expect(page.locator("[data-cy=study-browser-thumbnail]").first).to_be_visible()
    page.locator("[data-cy=study-browser-thumbnail-no-image]").filter(has_text=title).first.dblclick()


def shown(page: Page) -> Locator:
    """The text of a microbleed on the slice."""
    return page.locator("svg.svg-layer text").first


def tip_of_arrow(page: Page) -> tuple[float, float]:
    """Where the arrow points, in pixels of the window."""
    x, y = page.evaluate(
        """() => {
        const layer = document.querySelector('svg.svg-layer').getBoundingClientRect();
        const lines = [...document.querySelectorAll('svg.svg-layer line')];
        const ends = lines.map(line => [+line.getAttribute('x2'), +line.getAttribute('y2')]);
        const tip = ends.find(([x, y]) => ends.filter(([a, b]) => a === x && b === y).length > 1);
        return [layer.x + tip[0], layer.y + tip[1]];
    }"""
    )
    return x, y


def pixels(page: Page) -> NDArray[np.int_]:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def test_the_report_opens_at_each_microbleed_and_points_at_it(
    opened: Callable[[Detection], Page], tmp_path: Path
) -> None:
    detection = simulate(tmp_path / "source", 3, regions=True)
    numbers = [plane.number for plane in read_planes(detection.acquisition.swi)]
    page = opened(detection)
    show(page, "CMB report")
    for lesion in detection.findings.lesions:
        expect(shown(page)).to_contain_text(f"Diameter: {lesion.diameter_mm:.2f} mm")
        expect(page.locator("[data-cy=viewport-overlay-top-left]")).to_contain_text("SWI_Images")
        expect(page.locator("[data-cy=viewport-overlay-bottom-right]")).to_contain_text(
            str(numbers[lesion.voxel_ijk[2]])
        )
        x, y = tip_of_arrow(page)
        grey = pixels(page).min(axis=-1)  # the arrow is pure green: dark here
        around = grey[round(y) - 40 : round(y) + 41, round(x) - 40 : round(x) + 41]
        spot = around[30:51, 30:51]
        assert np.percentile(spot, 40) < 0.6 * np.median(around)
        page.locator("[data-cy=viewport-action-arrows-right]").click()


def test_the_segmentation_is_drawn_in_its_colours_and_named(
    opened: Callable[[Detection], Page], tmp_path: Path
) -> None:
    simulated = simulate(tmp_path / "source", 2)
    lesions = tuple(replace(lesion, certainty=Certainty.DEFINITE) for lesion in simulated.findings.lesions)
    detection = replace(simulated, findings=replace(simulated.findings, lesions=lesions))
    page = opened(detection)
    show(page, "CMB segmentation")
    page.locator("[data-cy=yes-hydrate-btn]").click()
    page.locator("[data-cy=panelSegmentation-btn]").click()
    for lesion in detection.findings.lesions:
        expect(page.get_by_text(f"Microbleed {lesion.id} ({lesion.certainty})")).to_be_visible()
    expect(page.locator("[data-cy=viewport-overlay-top-left]")).to_contain_text("SWI_Images")
    assert wait_for(lambda: (np.abs(pixels(page)[60:, 300:1100] - AMBER).max(axis=-1) < 25).sum() > 20, 60)


OTHERS: dict[str, Callable[[Path], Detection]] = {
    "no microbleed": lambda folder: simulate(folder, 0),
    "no phase": lambda folder: simulate(folder, 1, phase=False),
    "verified follow-up": lambda folder: verified(follow_up(simulate(folder, 7, regions=True))),
    "sixty microbleeds": lambda folder: simulate(folder, 60),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_reports_open(opened: Callable[[Detection], Page], tmp_path: Path, name: str) -> None:
    detection = OTHERS[name](tmp_path / "source")
    page = opened(detection)
    show(page, "CMB report")
    if detection.findings.lesions:
        expect(shown(page)).to_be_visible()
    else:
        page.locator("[data-cy=study-browser-thumbnail]").filter(has_text="SWI_Images").dblclick()
        expect(page.locator("[data-cy=viewport-overlay-top-left]")).to_contain_text("SWI_Images")
    expect(page.get_by_text("Something went wrong")).to_have_count(0)

"""The page of a study in a Chromium without WebGL: read, judged and marked by keyboard, by mouse, without any script.

The viewer has its own tests in :mod:`.test_desk`; here the slices are those that the server draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.node.people import local_app
from tests.node.reviewed import Patient
from tests.node.reviewed import patient as patient
from tests.node.seeded import HOSTILE, Seeder
from tests.web_server import served

from .test_worklist_page import ARGUMENTS, CHROMIUM
from .test_worklist_page import complaints as complaints
from .test_worklist_page import page as page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, "--disable-3d-apis"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(patient: Patient) -> Iterator[str]:
    with served(local_app(patient.seeder.data_dir, patient.ledger)) as address:
        yield address


@pytest.fixture
def study(page: Page, address: str, patient: Patient) -> Page:
    page.goto(address + patient.path, wait_until="networkidle")
    return page


def slice_shown(page: Page) -> str:
    return number_of(page).input_value()


def number_of(page: Page) -> Locator:
    return page.locator("#viewer").get_by_label("Slice", exact=True)


def checked(page: Page, lesion: int) -> str | None:
    found = page.locator(f"#lesion-{lesion} input[type=radio]:checked")
    return found.get_attribute("value") if found.count() else None


@pytest.mark.parametrize("width", [1280, 1024, 820])
def test_the_page_fits_the_screen_and_the_browser_has_no_complaint(
    study: Page, complaints: list[str], width: int
) -> None:
    study.set_viewport_size({"width": width, "height": 900})
    assert study.evaluate("document.scrollingElement.scrollWidth") <= width
    widths = study.locator("#crops img").evaluate_all("images => images.map(image => image.clientWidth)")
    assert len(widths) == 3
    assert min(widths) >= 180
    assert complaints == []


def test_the_answer_is_seen_before_anything_is_scrolled(study: Page) -> None:
    for text in ("7 cerebral microbleeds", "4 new, 3 stable, 1 no longer seen", "ARIA-H by new microbleeds: mild"):
        box = study.get_by_text(text).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 500


def test_bleeds_are_judged_with_the_keyboard_alone(study: Page, complaints: list[str]) -> None:
    order = study.locator("tbody[data-kept=yes]").evaluate_all("rows => rows.map(row => row.id)")
    study.keyboard.press("r")  # the first is selected
    study.keyboard.press("j")
    study.keyboard.press("a")
    study.keyboard.press("j")
    study.keyboard.press("r")
    study.keyboard.press("r")  # taken back
    study.keyboard.press("k")
    assert study.evaluate("document.activeElement.id") == order[1]
    numbers = [int(name.removeprefix("lesion-")) for name in order]
    assert [checked(study, number) for number in numbers[:3]] == ["reject", "accept", None]
    study.get_by_label("Comment for the report").fill("jar")  # letters are letters in a field
    assert [checked(study, number) for number in numbers[:3]] == ["reject", "accept", None]
    assert complaints == []


def test_slices_are_turned_by_keys_buttons_wheel_and_number_and_no_verdict_is_lost(
    study: Page, complaints: list[str]
) -> None:
    study.evaluate("window.neverLeft = true")
    study.locator("#lesion-3").get_by_text("Reject").click()
    expect(number_of(study)).to_have_value("108")  # 8 + 2 × 3 mm, of 2 mm
    start = 108
    study.keyboard.press("ArrowRight")
    expect(number_of(study)).to_have_value(str(start + 1))
    study.keyboard.press("ArrowLeft")
    expect(number_of(study)).to_have_value(str(start))
    study.get_by_role("button", name="Next slice").click()
    expect(number_of(study)).to_have_value(str(start + 1))
    study.locator(".stage").hover()
    study.mouse.wheel(0, 100)
    expect(number_of(study)).to_have_value(str(start + 2))
    number_of(study).fill("120")
    number_of(study).press("Enter")
    expect(study.get_by_text("20 of 40")).to_be_visible()
    study.get_by_role("button", name="mIP").click()
    expect(study.locator(".stage input")).to_have_attribute("src", "".join([study.url.rpartition("/studies")[1], "/",
        study.url.rpartition("/")[2], "/pictures/2/mip/19.jpg"]))  # fmt: skip
    assert checked(study, 3) == "reject"
    study.locator("#lesion-3").focus()
    study.keyboard.press("s")
    expect(number_of(study)).to_have_value("108")
    expect(study.locator("circle.rejected")).to_have_count(1)
    for _ in range(25):  # an arrow that is held down
        study.keyboard.press("ArrowRight")
    expect(study.locator(".stage")).to_be_visible()
    assert study.evaluate("window.neverLeft")  # each step was a part of the page, never a new one
    assert int(slice_shown(study)) > 108
    assert checked(study, 3) == "reject"
    assert complaints == []


def test_a_missed_bleed_is_marked_by_a_click_where_it_is_seen(study: Page, complaints: list[str]) -> None:
    picture = study.locator(".stage input")
    picture.scroll_into_view_if_needed()
    picture.click(position={"x": 200, "y": 300})
    study.get_by_role("button", name="Add as possible").click()  # nothing dark is there
    ring = study.locator("circle.possible").last
    expect(study.locator("text.ring-name", has_text="A1")).to_be_visible()
    assert float(ring.get_attribute("cx") or 0) == pytest.approx(200, abs=2)
    assert float(ring.get_attribute("cy") or 0) == pytest.approx(300, abs=2)
    start = int(slice_shown(study))
    study.get_by_role("button", name="Next slice").click()
    expect(number_of(study)).to_have_value(str(start + 1))  # or what is typed next goes with it
    expect(study.get_by_label("Certainty of A1")).to_have_value("possible")
    for row, column, said in (("10", "20", "outside the brain"), ("32", "25", "No dark region can be measured")):
        study.get_by_label("row").fill(row)
        study.get_by_label("column").fill(column)
        study.get_by_role("button", name="Mark", exact=True).click()
        expect(study.get_by_text(said)).to_be_visible()
        expect(study.get_by_label("Certainty of A1")).to_be_visible()
    study.get_by_role("button", name="Add as possible").click()
    expect(study.locator("text.ring-name", has_text="A2")).to_be_visible()
    picture = study.locator(".stage input")
    picture.focus()
    study.keyboard.press("Enter")  # a place needs a pointer, or a row and a column
    study.get_by_role("button", name="Remove").first.click()
    expect(study.get_by_label("Certainty of A2")).to_have_count(0)
    expect(study.get_by_label("Certainty of A1")).to_be_visible()
    assert complaints == []


def test_what_will_be_sent_is_shown_first_and_can_still_be_changed(study: Page, complaints: list[str]) -> None:
    study.locator("#lesion-1").get_by_text("Reject").click()
    study.get_by_label("Observer").fill(HOSTILE[:64])
    study.get_by_label("Organisation").fill("Ward 3")
    study.get_by_role("button", name="Preview").click()
    expect(study.get_by_role("heading", name="Preview of the verified result")).to_be_visible()
    expect(study.get_by_text("6 cerebral microbleeds")).to_be_visible()
    expect(study.get_by_text("Microbleed 1: right thalamus (deep), definite")).to_be_visible()
    study.get_by_role("button", name="Go back and edit").click()
    expect(study.get_by_label("Organisation")).to_have_value("Ward 3")
    assert checked(study, 1) == "reject"
    assert complaints == []


def test_a_page_that_renews_itself_keeps_half_made_verdicts(page: Page, complaints: list[str], tmp_path: Path) -> None:
    s = Seeder(tmp_path)
    study = s.receive("one", "Rivera^Maria", "P-7001")
    s.settle("one")
    s.open("one")
    s.analyse("one", 3)  # its delivery has still to come
    with served(local_app(tmp_path, s.ledger)) as address:
        page.goto(f"{address}/studies/{study}", wait_until="networkidle")
        expect(page.get_by_text("Sending results")).to_be_visible()
        page.locator("#lesion-2").get_by_text("Reject").click()
        page.get_by_label("Comment for the report").fill("half a sent")
        s.deliver("one")
        expect(page.get_by_text("Results delivered")).to_be_visible(timeout=30_000)
        expect(page.locator("#deliveries-now").get_by_text("Accepted")).to_have_count(3)
        assert checked(page, 2) == "reject"
        expect(page.get_by_label("Comment for the report")).to_have_value("half a sent")
        expect(page.locator("#newer")).to_be_hidden()
    s.ledger.close()
    assert complaints == []


def test_everything_works_without_a_script(browser: Browser, address: str, patient: Patient) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address + patient.path)
    page.locator("#lesion-1").get_by_text("Reject").click()
    page.get_by_role("button", name="Next slice").click()
    assert checked(page, 1) == "reject"
    page.locator(".stage input").click(position={"x": 320, "y": 256})
    page.get_by_role("button", name="Add as possible").click()
    expect(page.get_by_label("Certainty of A1")).to_be_visible()
    page.wait_for_load_state()  # Enter submits nothing while the form is still being read
    number_of(page).fill("120")
    number_of(page).press("Enter")
    expect(page.get_by_text("20 of 40")).to_be_visible()
    assert checked(page, 1) == "reject"
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("7 cerebral microbleeds")).to_be_visible()  # one less, one more
    context.close()


def test_the_first_study_of_an_empty_node_appears_by_itself(page: Page, complaints: list[str], tmp_path: Path) -> None:
    s = Seeder(tmp_path)
    with served(local_app(tmp_path, s.ledger)) as address:
        page.goto(address, wait_until="networkidle")
        expect(page.get_by_text("No studies yet")).to_be_visible()
        s.receive("one", "Rivera^Maria", "P-7001")
        expect(page.get_by_role("link", name="Maria Rivera")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("search")).to_be_visible()
        s.receive("two", "Noether^Emmy", "P-7002")
        expect(page.get_by_role("link", name="Emmy Noether")).to_be_visible(timeout=30_000)
    s.ledger.close()
    assert complaints == []

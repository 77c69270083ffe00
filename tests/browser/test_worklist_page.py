"""The worklist in a real Chromium: it updates itself, works by keyboard, fits the screen, and runs nobody's script."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.node.people import local_app
from tests.node.seeded import Seeder, seed
from tests.web_server import served

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def seeder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    made = Seeder(tmp_path_factory.mktemp("browser"))
    seed(made.data_dir, made)
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def address(seeder: Seeder) -> Iterator[str]:
    with served(local_app(seeder.data_dir, seeder.ledger)) as at:
        yield at


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said: an error of a script, or a violation of the security policy."""
    return []


def listen(page: Page, complaints: list[str]) -> None:
    """Collect what a page's console says, but for Chromium's own remarks on how fast its software graphics are."""
    page.on("console", lambda said: None if "GL Driver Message" in said.text else complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    listen(opened, complaints)
    opened.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield opened
    opened.close()


@pytest.mark.parametrize("width", [1280, 1024, 800])
@pytest.mark.parametrize("key", [None, "delivered", "queued", "delivering", "failed"])
def test_a_page_fits_the_screen_and_the_browser_has_no_complaint(
    page: Page, complaints: list[str], address: str, seeder: Seeder, width: int, key: str | None
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address + (f"/studies/{seeder.studies[key]}" if key else "/"))
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert complaints == []


def test_a_hostile_name_is_seen_and_not_run(page: Page, complaints: list[str], address: str) -> None:
    page.goto(address, wait_until="networkidle")
    expect(page.get_by_role("link", name="<script>alert('xss')</script>")).to_be_visible()
    assert page.locator("main script, main img").count() == 0
    assert complaints == []


def test_a_new_study_appears_by_itself_and_the_reader_keeps_the_place(page: Page, address: str, seeder: Seeder) -> None:
    page.set_viewport_size({"width": 1280, "height": 400})
    page.goto(address, wait_until="networkidle")
    page.get_by_role("link", name="Grace Hopper").focus()
    page.evaluate("window.scrollTo(0, 150)")
    before = page.evaluate("window.scrollY")
    seeder.receive("late", "Franklin^Rosalind", "P-2001")
    expect(page.get_by_role("link", name="Rosalind Franklin")).to_be_attached(timeout=15_000)
    assert page.evaluate("window.scrollY") == before > 0
    assert page.evaluate("document.activeElement.textContent") == "Grace Hopper"


def test_a_study_is_opened_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address, wait_until="networkidle")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    link = page.get_by_role("link", name="Grace Hopper")
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible()


def test_the_whole_line_of_a_study_is_its_link(page: Page, address: str) -> None:
    page.goto(address, wait_until="networkidle")
    page.get_by_text("4 definite · 3 possible").click(force=True)  # the link lies over the text
    expect(page.get_by_role("heading", name="7 cerebral microbleeds")).to_be_visible()


def test_the_capture_is_behind_its_tab_as_wide_as_it_is(page: Page, address: str, seeder: Seeder) -> None:
    page.goto(f"{address}/studies/{seeder.studies['delivered']}#capture", wait_until="networkidle")
    picture = page.get_by_role("img", name="ringed and numbered")
    assert picture.evaluate("image => image.naturalWidth") == 640
    image = picture.bounding_box()
    assert image is not None
    assert image["width"] > 1200  # of 1280: its small print is made to be read at 100 %
    assert image["height"] == pytest.approx(image["width"] * 480 / 640, abs=2)


def test_a_study_page_follows_its_study(page: Page, address: str, seeder: Seeder) -> None:
    page.goto(f"{address}/studies/{seeder.studies['running']}", wait_until="networkidle")
    expect(page.get_by_text("Analysing: candidates")).to_be_visible()
    seeder.ledger.heartbeat(seeder.jobs["running"], "worker-1", 30, progress="measure")
    expect(page.get_by_text("Analysing: measure")).to_be_visible(timeout=15_000)

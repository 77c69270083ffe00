"""The reading desk in a Chromium with WebGL 2: it fits the window, and a verdict is seen on the slice at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.node.reviewed import Patient
from tests.waiting import wait_for

from .test_study_use import address as address
from .test_study_use import checked
from .test_study_use import patient as patient
from .test_worklist_page import ARGUMENTS, CHROMIUM, listen

pytestmark = pytest.mark.browser

SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
LOAD_MS = 120_000
DARK = 100
"""A small microbleed between two voxels is not black; the tissue around it is brighter than 140."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = [one for one in ARGUMENTS if one != "--disable-gpu"] + SOFTWARE_GL
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str, patient: Patient) -> Iterator[tuple[Page, list[str]]]:
    """The desk, opened once: without a graphics card, a browser takes seconds to set it up.

    Until the first volume is there, the server's slice is what the reader sees.
    """
    complaints: list[str] = []
    with browser.new_page(viewport={"width": 1280, "height": 800}) as page:
        listen(page, complaints)
        held: list[Route] = []
        page.route("**/swi.nii", lambda route: held.append(route))
        with page.expect_request("**/swi.nii", timeout=LOAD_MS):
            page.goto(address + patient.path)
        expect(page.locator(".stage input")).to_be_visible()
        expect(page.locator("#volumes")).not_to_be_visible()
        wait_for(lambda: held)
        held[0].continue_()
        page.wait_for_selector("#volumes[data-loaded]", timeout=LOAD_MS)
        yield page, complaints


@pytest.fixture
def desk(opened: tuple[Page, list[str]]) -> Iterator[Page]:
    """The desk as it was opened; the test fails if the browser has a complaint."""
    page, complaints = opened
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("link", name="Findings", exact=True).click()
    page.get_by_role("button", name="Point").click()
    page.get_by_role("button", name="Reset").click()
    if (planes := page.locator("[data-planes][aria-pressed=true]")).count():
        planes.click()
    page.locator("tbody[data-lesion] .place").first.click()
    yield page
    assert complaints == []


def slice_number(page: Page) -> Locator:
    return page.locator("#volumes").get_by_label("Slice", exact=True)


def box_of(one: Locator) -> Any:
    return wait_for(one.bounding_box)  # none while the overlay is drawn again


def centre_of(page: Page, locator: str, number: int = 0) -> tuple[float, float]:
    box = box_of(page.locator(locator).nth(number))
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def grey(page: Page, x: float, y: float) -> float:
    """The darkest of the 3 × 3 pixels at a point of the window."""
    clip = {"x": x - 1, "y": y - 1, "width": 3, "height": 3}
    return float(np.asarray(Image.open(BytesIO(page.screenshot(clip=clip))).convert("L")).min())  # type: ignore[arg-type]


def is_around_something_dark(page: Page, ring: str, number: int = 0) -> bool:
    """Whether a ring gets to be; the picture is drawn after the rings, and both move when panes change their size."""
    return bool(wait_for(lambda: grey(page, *centre_of(page, ring, number)) < DARK))


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 800)])
def test_the_desk_fits_the_window_and_uses_it(desk: Page, width: int, height: int) -> None:
    desk.set_viewport_size({"width": width, "height": height})
    for side, size in (("Height", height), ("Width", width)):
        assert desk.evaluate(f"document.scrollingElement.scroll{side}") == size
    for inside in ("#lesion-1", ".sign [name=preview]", "#volumes", "#crops img"):
        box = desk.locator(inside).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= height
    viewer = desk.locator("#volumes").bounding_box()
    assert viewer is not None
    assert viewer["x"] + viewer["width"] > width - 30


def test_every_ring_is_around_its_bleed_in_every_pane_and_plane(desk: Page) -> None:
    for lesion in (1, 6):
        desk.locator(f"#lesion-{lesion}").locator(".place").click()
        number = desk.locator(f"#lesion-{lesion}").get_attribute("data-number")
        expect(slice_number(desk)).to_have_value(str(number))
        for pane in ("swi", "mip"):
            ring = f"[data-volume={pane}] circle[data-mark='{lesion}']"
            assert is_around_something_dark(desk, ring)
            (x, y), radius = centre_of(desk, ring), float(desk.locator(ring).get_attribute("r") or 0)
            assert max(grey(desk, x - 2 * radius, y), grey(desk, x + 2 * radius, y)) > 140
        desk.get_by_role("button", name="3 planes").click()
        expect(desk.locator(f"[data-volume=swi] circle[data-mark='{lesion}']")).to_have_count(3)
        for plane in range(3):
            assert is_around_something_dark(desk, f"[data-volume=swi] circle[data-mark='{lesion}']", plane)
        desk.get_by_role("button", name="3 planes").click()


def test_a_verdict_is_seen_on_the_slice_at_once(desk: Page) -> None:
    rings = desk.locator("[data-volume=swi] circle.selected")
    order = desk.locator("tbody[data-lesion]").evaluate_all("rows => rows.map(row => row.dataset.label)")
    desk.keyboard.press("j")
    expect(rings).to_have_attribute("data-mark", order[1])
    expect(desk.locator("#crops img").first).to_have_attribute("src", re.compile(rf"/{order[1]}-swi\.jpg$"))
    desk.keyboard.press("r")
    expect(rings).to_have_class("ring rejected selected")
    assert checked(desk, int(order[1])) == "reject"
    desk.keyboard.press("r")  # taken back
    expect(rings).not_to_have_class("ring rejected selected")
    desk.get_by_role("button", name="Marks").click()
    expect(desk.locator("[data-volume] circle")).to_have_count(0)
    desk.keyboard.press("o")
    expect(rings).to_have_count(1)


def test_slices_turn_by_wheel_keys_buttons_and_number_and_the_wheel_never_traps_the_page(desk: Page) -> None:
    number = slice_number(desk)
    number.fill("120")
    number.press("Enter")
    expect(desk.get_by_text("20 of 40")).to_be_visible()
    desk.get_by_role("button", name="Next slice").click()
    expect(number).to_have_value("121")
    desk.keyboard.press("ArrowLeft")
    expect(number).to_have_value("120")
    desk.keyboard.press("ArrowDown")
    expect(number).to_have_value("121")
    x, y = centre_of(desk, "[data-volume=swi] .screen")
    desk.mouse.move(x, y)
    desk.mouse.wheel(0, 100)
    expect(number).to_have_value("122")
    desk.evaluate("addEventListener('wheel', event => { window.kept = event.defaultPrevented; })")
    desk.mouse.wheel(0, -100)
    expect(number).to_have_value("121")
    assert desk.evaluate("window.kept")
    number.fill("140")
    number.press("Enter")
    expect(desk.get_by_text("40 of 40")).to_be_visible()
    desk.mouse.move(x, y + 1)
    desk.mouse.wheel(0, 100)
    wait_for(lambda: desk.evaluate("window.kept") is False)


def test_the_picture_is_enlarged_moved_windowed_and_measured(desk: Page) -> None:
    ring = "[data-volume=swi] circle.selected"
    before = box_of(desk.locator(ring))
    x, y = centre_of(desk, ring)
    desk.mouse.move(x, y)
    desk.keyboard.down("Control")
    desk.mouse.wheel(0, -100)
    desk.mouse.wheel(0, -100)
    desk.keyboard.up("Control")
    wait_for(lambda: box_of(desk.locator(ring))["width"] > 1.3 * before["width"])
    assert centre_of(desk, ring) == pytest.approx((x, y), abs=3)  # what is under the pointer stays there
    desk.get_by_role("button", name="Pan").click()
    desk.mouse.move(x, y)
    desk.mouse.down()
    desk.mouse.move(x + 30, y + 20, steps=3)
    desk.mouse.up()
    wait_for(lambda: centre_of(desk, ring) == pytest.approx((x + 30, y + 20), abs=3))
    assert is_around_something_dark(desk, ring)  # the volume went along
    tissue = (x + 30, y + 90)
    bright = grey(desk, *tissue)
    desk.get_by_role("button", name="Window").click()
    desk.mouse.move(*tissue)
    desk.mouse.down()
    desk.mouse.move(tissue[0], tissue[1] + 60, steps=3)
    desk.mouse.up()
    wait_for(lambda: grey(desk, *tissue) < bright - 30)
    desk.get_by_role("button", name="Reset").click()
    wait_for(
        lambda: (
            centre_of(desk, ring)
            == pytest.approx((before["x"] + before["width"] / 2, before["y"] + before["height"] / 2), abs=1)
        )
    )
    desk.get_by_role("button", name="Ruler").click()
    radius_mm = float(desk.locator("tbody.selected").get_attribute("data-diameter") or 0) / 2 + 2.5
    pixels_per_mm = float(desk.locator(ring).get_attribute("r") or 0) / radius_mm
    desk.mouse.move(x, y)
    desk.mouse.down()
    desk.mouse.move(x + 20 * pixels_per_mm, y, steps=2)
    desk.mouse.up()
    length = desk.locator("[data-volume=swi] .ruler-length")
    expect(length).to_have_text("20.0 mm")
    desk.keyboard.press("ArrowRight")
    expect(length).to_have_count(0)  # it belongs to its slice


def test_the_other_parts_of_the_study_are_behind_tabs(desk: Page) -> None:
    for tab, text in (
        ("Summary", "Microbleeds by region"),
        ("Series", "Pha_Images"),
        ("Deliveries", "Structured report"),
        ("History", "Study routed"),
    ):
        desk.get_by_role("link", name=tab, exact=True).click()
        expect(desk.get_by_text(text).first).to_be_visible()
        expect(desk.locator("#review")).to_be_hidden()
    desk.keyboard.press("r")  # no verdict on what is not seen
    desk.get_by_role("link", name="Findings", exact=True).click()
    expect(desk.locator("[data-volume=swi] circle.selected")).to_be_visible()
    assert desk.locator("input[type=radio]:checked").count() == 0


def test_a_microbleed_is_added_deliberately_and_a_refusal_loses_nothing(desk: Page) -> None:
    x, y = centre_of(desk, "[data-volume=swi] circle.selected")
    added = desk.locator("tbody[data-added]")
    desk.mouse.click(x + 40, y)  # a stray click moves the crosshair and adds nothing
    desk.keyboard.press("r")
    desk.get_by_role("button", name="Add a microbleed").click()
    desk.mouse.click(x + 40, y)
    desk.get_by_role("button", name="Do not add").click()
    expect(desk.get_by_role("alertdialog")).to_have_count(0)
    desk.keyboard.press("n")
    desk.mouse.click(x + 40, y)
    expect(desk.get_by_text("No dark region can be measured here")).to_be_visible()
    expect(desk.locator("[data-volume=swi] circle[data-mark='?']")).to_have_count(1)
    desk.get_by_role("button", name="Add as possible").click()
    expect(added).to_have_count(1)
    expect(desk.locator("[data-volume=swi] circle[data-mark=A1]")).to_have_class("ring possible selected")
    expect(desk.get_by_role("button", name="Point")).to_have_attribute("aria-pressed", "true")  # one click, one place
    desk.keyboard.press("n")
    desk.mouse.click(x + 40, y + 2)
    expect(desk.get_by_text("A1 is already marked there")).to_be_visible()
    desk.keyboard.press("n")
    edge = desk.locator("[data-volume=swi] .screen").bounding_box()
    assert edge is not None
    desk.mouse.click(edge["x"] + edge["width"] / 2, edge["y"] + 60)
    expect(desk.get_by_text("This place lies outside the brain")).to_be_visible()
    expect(added).to_have_count(1)
    assert desk.locator("tbody.is-rejected").count() == 1
    desk.get_by_label("Comment for the report").fill("half a sent")
    label = desk.locator("#lesion-3").get_attribute("data-label")
    desk.locator("#lesion-3 .place").click()
    desk.keyboard.press("p")
    expect(desk.locator(f"[data-volume=swi] circle[data-mark='{label}']")).to_have_class("ring possible selected")
    desk.reload()
    expect(desk.get_by_text("Your unsent entries have been restored")).to_be_visible()
    expect(added).to_have_count(1)
    assert desk.locator("tbody.is-rejected").count() == 1
    expect(desk.get_by_label("Certainty of microbleed 3")).to_have_value("possible")
    expect(desk.get_by_label("Comment for the report")).to_have_value("half a sent")
    desk.get_by_role("button", name="Remove").click()
    expect(added).to_have_count(0)
    desk.get_by_role("button", name="Discard them").click()
    expect(desk.get_by_label("Comment for the report")).to_have_value("")
    assert desk.locator("tbody.is-rejected").count() == 0

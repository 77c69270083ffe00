"""Every page meets WCAG 2.2 AA as axe checks it, on a desktop, a tablet and a phone, on dark and on light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from node.roles import SessionKind, UserRole
from node.settings import load_settings
from node.web.app import create_app
from node.web.auth import cookie_name, new_token, token_hash
from tests.node.people import add
from tests.node.reviewed import Patient
from tests.web_server import served

from .test_worklist_page import browser as browser

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SINGLE = ("/audit", "/detector", "/administration", "/administration/dry-run", "/account")
SIZES = {"desktop": (1280, 800), "tablet": (820, 1180), "phone": (390, 844)}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    made = Patient(tmp_path_factory.mktemp("accessibility"))
    add(made.ledger, "root", UserRole.ADMINISTRATOR, "Root")
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def address(patient: Patient) -> Iterator[str]:
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    worklist = {"host": "0.0.0.0", "viewer_url": "https://ohif.example/{study_uid}"}
    settings = load_settings(None, data_dir=patient.seeder.data_dir, worklist=worklist, destinations={"pacs": pacs})
    with served(create_app(settings, patient.ledger)) as at:
        yield at


def violations(page: Page) -> list[str]:
    """What axe finds wrong on a page, one line each, with the elements."""
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']}).then(done => done.violations)", RULES
    )
    return [f"{one['id']}: {node['html'][:150]} {node['any'][:1]}" for one in found for node in one["nodes"][:6]]


@pytest.mark.parametrize(
    ("size", "scheme"), [("desktop", "dark"), ("desktop", "light"), ("tablet", "light"), ("phone", "dark")]
)
def test_axe_finds_no_fault_on_any_page(
    browser: Browser, address: str, patient: Patient, size: str, scheme: Any
) -> None:
    width, height = SIZES[size]
    token = new_token()
    patient.ledger.open_session(token_hash(token), "root", SessionKind.BROWSER, 3600)
    wrong: dict[str, list[str]] = {}
    with browser.new_context(
        viewport={"width": width, "height": height}, has_touch=size != "desktop", color_scheme=scheme
    ) as context:
        page = context.new_page()
        page.goto(f"{address}/sign-in")
        wrong["/sign-in"] = violations(page)
        context.add_cookies([{"name": cookie_name(False), "value": token, "url": address}])
        for path in ("/", patient.path, *SINGLE):
            page.goto(address + path)
            page.evaluate("document.querySelector('#volumes')?.removeAttribute('hidden')")  # without WebGL 2
            wrong[path] = violations(page)
            for part in ("Summary", "Deliveries") if path == patient.path else ():  # no second start of the viewer
                page.locator(".tabs").get_by_role("link", name=part).click()
                expect(page.locator(f"#{part.lower()}")).to_be_visible()
                wrong[f"{path}#{part.lower()}"] = violations(page)
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("size", ["tablet", "phone"])
def test_a_finger_hits_every_control(browser: Browser, address: str, patient: Patient, size: str) -> None:
    width, height = SIZES[size]
    token = new_token()
    patient.ledger.open_session(token_hash(token), "root", SessionKind.BROWSER, 3600)
    with browser.new_context(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True) as context:
        context.add_cookies([{"name": cookie_name(False), "value": token, "url": address}])
        page = context.new_page()
        for path in ("/", patient.path, *SINGLE):
            page.goto(address + path)
            page.evaluate("document.querySelector('#volumes')?.removeAttribute('hidden')")
            assert page.evaluate("matchMedia('(pointer: coarse)').matches")
            small = page.evaluate(
                """() => [...document.querySelectorAll('button, select, textarea, input, summary, main a, header a')]
                .filter((one) => one.checkVisibility() && !one.closest('.hidden, .tick, .verdict, p, .skip, .stage'))
                .filter((one) => one.type !== 'hidden' && one.type !== 'image')
                .map((one) => [one.outerHTML.slice(0, 120), Math.round(one.getBoundingClientRect().height)])
                .filter(([, height]) => height < 44)"""
            )
            assert small == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("size", ["desktop", "tablet", "phone"])
def test_the_number_of_microbleeds_is_seen_before_anything_is_scrolled(
    browser: Browser, address: str, patient: Patient, size: str
) -> None:
    width, height = SIZES[size]
    token = new_token()
    patient.ledger.open_session(token_hash(token), "root", SessionKind.BROWSER, 3600)
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        context.add_cookies([{"name": cookie_name(False), "value": token, "url": address}])
        page = context.new_page()
        page.goto(address + patient.path)
        expect(page.get_by_role("heading", name=re.compile("^7 cerebral microbleeds"))).to_be_in_viewport(ratio=1)

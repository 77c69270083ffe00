"""The worklist in use, in a real Chromium: signing in, finding a study, sorting, keys, rows that come by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from node.ledger.access_records import AuditAction
from node.roles import SessionKind, UserRole
from node.settings import load_settings
from node.web import passwords
from node.web.app import create_app
from node.web.auth import cookie_name, new_token, token_hash
from tests.node.people import CHEAP, PASSWORD, add
from tests.node.seeded import Seeder, seed
from tests.web_server import served

from .test_worklist_page import browser as browser

pytestmark = pytest.mark.browser
expect.set_options(timeout=20_000)  # of a busy machine


@pytest.fixture(scope="module")
def seeder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    made = Seeder(tmp_path_factory.mktemp("use"))
    seed(made.data_dir, made)
    add(made.ledger, "grace", UserRole.READER, "Dr. Grace Hopper")
    add(made.ledger, "ada")
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def address(seeder: Seeder) -> Iterator[str]:
    settings = load_settings(None, data_dir=seeder.data_dir, worklist={"wrong_per_account": 3})
    with served(create_app(settings, seeder.ledger)) as at:
        yield at


@pytest.fixture
def page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(passwords, "_hasher", CHEAP)
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    yield opened.new_page()
    opened.close()


def sign_in(page: Page, name: str = "grace", password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def worklist(page: Page, address: str, seeder: Seeder) -> Page:
    """The list, as somebody who has signed in sees it."""
    token = new_token()
    seeder.ledger.open_session(token_hash(token), "grace", SessionKind.BROWSER, 3600)
    page.context.add_cookies([{"name": cookie_name(False), "value": token, "url": address}])
    page.goto(address)
    return page


def names(page: Page) -> list[str]:
    return page.locator("a.row").all_inner_texts()


def test_a_reader_signs_in_comes_to_what_was_asked_for_and_signs_out(page: Page, address: str, seeder: Seeder) -> None:
    page.goto(f"{address}/studies/{seeder.studies['delivered']}")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("grace")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible()
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(address)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_after_wrong_passwords_the_right_one_has_to_wait_too(page: Page, address: str, seeder: Seeder) -> None:
    page.goto(address)
    for _ in range(3):
        sign_in(page, "ada", "not the password")
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
    sign_in(page, "ada")
    expect(page.get_by_role("alert")).to_contain_text("Too many failed attempts. Try again in")
    refused = [entry.detail for entry in seeder.ledger.audit() if entry.action == AuditAction.REFUSAL]
    assert refused.count("wrong password") == 3


def test_typing_narrows_the_list_and_the_address_keeps_it(worklist: Page, address: str) -> None:
    worklist.keyboard.press("/")
    expect(worklist.get_by_label("Search")).to_be_focused()
    worklist.keyboard.type("hopper grace")
    expect(worklist.locator("a.row")).to_have_count(1)
    expect(worklist).to_have_url(f"{address}/?q=hopper+grace")
    expect(worklist.get_by_label("Search")).to_be_focused()
    worklist.reload()
    expect(worklist.get_by_label("Search")).to_have_value("hopper grace")
    assert names(worklist) == ["Grace Hopper"]
    worklist.get_by_role("link", name="Clear filters").click()
    expect(worklist.locator("a.row")).not_to_have_count(1)


def test_filters_and_order_hold_together_and_back_undoes_them(worklist: Page, address: str) -> None:
    worklist.get_by_label("Microbleeds").select_option("any number")
    worklist.get_by_label("State").select_option("delivered")
    expect(worklist).to_have_url(f"{address}/?state=delivered")
    worklist.get_by_role("link", name="Microbleeds").click()
    expect(worklist.locator("th[aria-sort=descending]")).to_have_text("Microbleeds ↓")
    expect(worklist).to_have_url(f"{address}/?state=delivered&sort=burden")
    assert names(worklist) == ["Grace Hopper", "Ada Lovelace"]
    worklist.get_by_label("Priority").select_option("routine")
    expect(worklist).to_have_url(f"{address}/?state=delivered&priority=routine&sort=burden")
    worklist.get_by_role("link", name="Microbleeds").click()
    expect(worklist.locator("th[aria-sort=ascending]")).to_be_visible()
    assert names(worklist) == ["Ada Lovelace", "Grace Hopper"]
    worklist.go_back()
    expect(worklist).to_have_url(f"{address}/?state=delivered&priority=routine&sort=burden")
    expect(worklist.locator("th[aria-sort=descending]")).to_be_visible()


def test_a_narrowed_list_renews_itself_and_stays_narrowed(worklist: Page, address: str, seeder: Seeder) -> None:
    worklist.goto(f"{address}/?q=Meitner&sort=burden")
    expect(worklist.get_by_text("No studies match these filters")).to_be_visible()
    worklist.get_by_label("Search").focus()
    seeder.receive("live", "Meitner^Lise", "P-3001")
    seeder.receive("other", "Hahn^Otto", "P-3002")
    expect(worklist.get_by_role("link", name="Lise Meitner")).to_be_visible(timeout=15_000)
    assert names(worklist) == ["Lise Meitner"]
    expect(worklist.locator(".worklist .state")).to_have_text("Receiving images")
    seeder.settle("live")
    seeder.open("live")
    seeder.analyse("live", 5)
    expect(worklist.get_by_text("3 definite · 2 possible")).to_be_visible(timeout=15_000)
    expect(worklist.get_by_label("Search")).to_be_focused()
    expect(worklist).to_have_url(f"{address}/?q=Meitner&sort=burden")


def test_lines_are_gone_through_with_the_arrows_and_opened_with_enter(worklist: Page) -> None:
    worklist.keyboard.press("/")
    worklist.keyboard.type("P-100")
    expect(worklist.locator("a.row")).to_have_count(8)
    worklist.keyboard.press("ArrowDown")
    expect(worklist.locator("a.row").first).to_be_focused()
    worklist.keyboard.press("ArrowUp")
    expect(worklist.get_by_label("Search")).to_be_focused()
    for _ in range(8):
        worklist.keyboard.press("ArrowDown")
    expect(worklist.get_by_role("link", name="Grace Hopper", exact=True)).to_be_focused()
    outline = worklist.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle")
    assert outline == "solid"
    worklist.keyboard.press("Enter")
    expect(worklist.get_by_role("heading", name="Grace Hopper")).to_be_visible()


def test_a_node_that_is_gone_is_said_and_its_return_too(worklist: Page) -> None:
    worklist.context.set_offline(True)
    expect(worklist.get_by_text("The node does not answer")).to_be_visible(timeout=15_000)
    worklist.context.set_offline(False)
    expect(worklist.get_by_text("The node does not answer")).to_be_hidden(timeout=15_000)


def test_pages_fit_a_screen_and_a_tablet(worklist: Page, address: str) -> None:
    said: list[str] = []
    worklist.on("console", lambda message: said.append(message.text))
    widths = {}
    for width in (1280, 1024, 768):
        worklist.set_viewport_size({"width": width, "height": 800})
        for path in ("/", "/?sort=burden&state=way&q=x", "/account"):
            worklist.goto(address + path)
            widths[width, path] = worklist.evaluate("document.scrollingElement.scrollWidth")
    assert all(wide <= width for (width, _), wide in widths.items()), widths
    assert said == []


def press(page: Page, key: str) -> None:
    """Press a key on a page that was just opened: its scripts run before it counts as loaded."""
    page.wait_for_load_state()
    page.keyboard.press(key)


def test_a_study_leads_to_its_neighbours_in_the_list_it_was_opened_from(worklist: Page) -> None:
    worklist.goto(worklist.url + "?sort=patient")
    order = names(worklist)
    worklist.locator("a.row").nth(1).click()
    expect(worklist.get_by_role("heading", level=1)).to_have_text(order[1])
    expect(worklist.get_by_role("link", name="← Previous")).to_have_attribute("title", order[0])
    press(worklist, "]")
    expect(worklist.get_by_role("heading", level=1)).to_have_text(order[2])
    press(worklist, "[")
    expect(worklist.get_by_role("heading", level=1)).to_have_text(order[1])
    press(worklist, "[")
    expect(worklist.get_by_role("heading", level=1)).to_have_text(order[0])
    expect(worklist.get_by_role("link", name="← Previous")).to_have_count(0)
    worklist.get_by_role("link", name="Worklist").click()
    expect(worklist).to_have_url(re.compile(r"sort=patient$"))


def test_a_question_mark_lists_the_keys(worklist: Page) -> None:
    worklist.keyboard.press("?")
    keys = worklist.get_by_role("dialog", name="Keys")
    expect(keys).to_be_visible()
    expect(keys.get_by_text("open the study")).to_be_visible()
    worklist.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    worklist.get_by_role("button", name="Keys").click()
    keys.get_by_role("button", name="Close").click()
    expect(keys).to_be_hidden()

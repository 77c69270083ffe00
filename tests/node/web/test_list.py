"""The list shows what was asked for, keeps it in its address, and holds text of any origin harmless."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import FindingCounts, Priority, StudyState
from node.ledger.findings_columns import findings_columns
from node.text import printable
from node.web.auth import POLL
from node.web.list_query import BURDENS, FINDINGS, PRIORITIES, SORTS, STATES, ListQuery
from node.web.worklist_view import study_line, worklist_page
from pipeline.findings import ImageQuality, Placement
from tests.node.people import local_app
from tests.node.seeded import Seeded, Seeder, make_findings, seed

from .test_worklist import Page, read


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    made = seed(tmp_path_factory.mktemp("list"))
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def web(seeded: Seeded) -> Iterator[TestClient]:
    app = local_app(seeded.data_dir, seeded.ledger)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def listed(page: Page, seeded: Seeded) -> list[str]:
    """The keys of the studies on a page, in order."""
    keys = {f"/studies/{uid}": key for key, uid in seeded.studies.items()}
    return [keys[str(a["href"])] for a in page.tags("a") if a.get("class") == "row"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/?q=hopper", ["delivered"]),
        ("/?q=Hopper,+Grace", ["delivered"]),
        ("/?q=grace+hopper", ["delivered"]),
        ("/?q=P-1002", ["clean"]),
        ("/?q=A10037", ["ignored"]),
        ("/?q=knee", ["ignored"]),
        ("/?q=山田", ["failed"]),
        ("/?q=100%25", []),
        ("/?q=<script>", ["queued"]),
        ("/?state=failed", ["failed"]),
        ("/?state=way", ["receiving", "queued", "running", "delivering"]),
        ("/?state=waiting", ["queued"]),
        ("/?state=delivered", ["clean", "delivered"]),
        ("/?priority=stat", ["running"]),
        ("/?burden=any", ["delivering", "delivered"]),
        ("/?burden=0", ["clean"]),
        ("/?burden=5-9", ["delivered"]),
        ("/?burden=10", ["delivering"]),
        ("/?burden=1-4", []),
        ("/?findings=verified", []),
        ("/?findings=unverified&state=delivered", ["clean", "delivered"]),
        ("/?profile=frst&burden=10", ["delivering"]),
        ("/?profile=other", []),
        ("/?sort=burden&state=delivered", ["delivered", "clean"]),
        ("/?sort=burden&dir=asc&burden=any", ["delivered", "delivering"]),
        ("/?sort=patient&state=delivered", ["delivered", "clean"]),
        ("/?sort=patient&dir=desc&state=delivered", ["clean", "delivered"]),
        ("/?dir=asc&state=delivered", ["delivered", "clean"]),
    ],
)  # fmt: skip
def test_the_list_shows_what_its_address_asks_for(
    web: TestClient, seeded: Seeded, address: str, expected: list[str]
) -> None:
    assert listed(read(web, address), seeded) == expected


def test_urgent_studies_come_first_by_priority_and_failed_ones_by_state(web: TestClient, seeded: Seeded) -> None:
    assert listed(read(web, "/?sort=priority"), seeded)[0] == "running"
    assert listed(read(web, "/?sort=state"), seeded)[:2] == ["failed", "running"]


def test_a_day_is_a_day_of_the_server(web: TestClient, seeded: Seeded) -> None:
    first = seeded.ledger.study(seeded.studies["delivered"]).first_received_at.astimezone().date()
    before, after = first - timedelta(days=1), first + timedelta(days=2)
    assert len(listed(read(web, f"/?since={first}&until={after}"), seeded)) == 8
    assert listed(read(web, f"/?until={before}"), seeded) == []
    assert listed(read(web, f"/?since={after}"), seeded) == []
    assert len(listed(read(web, "/?since=yesterday&until=31.12.2026"), seeded)) == 8


def test_a_head_sorts_and_then_turns_round(web: TestClient) -> None:
    heads = {a["id"]: a["href"] for a in read(web, "/?q=e").tags("a") if (a.get("class") or "") == "sort"}
    assert heads == {
        "sort-patient": "/?q=e&sort=patient",
        "sort-burden": "/?q=e&sort=burden",
        "sort-state": "/?q=e&sort=state",
        "sort-priority": "/?q=e&sort=priority",
        "sort-received": "/?q=e&dir=asc",
    }
    sorted_page = read(web, "/?q=e&sort=burden")
    assert {a["id"]: a["href"] for a in sorted_page.tags("a") if a.get("id")}["sort-burden"] == (
        "/?q=e&sort=burden&dir=asc"
    )
    assert [th["aria-sort"] for th in sorted_page.tags("th") if "aria-sort" in th] == ["descending"]


def test_the_list_asks_for_the_same_list_again(web: TestClient) -> None:
    page = read(web, "/?sort=burden&q=e&nonsense=1")
    (live,) = [tag for tag in page.tags("div") if "hx-get" in tag]
    assert live["hx-get"] == "/?q=e&sort=burden"
    assert live["hx-headers"] == f'{{"{POLL.title()}": "1"}}'
    assert not any("hx-headers" in tag for tag in page.tags("a"))  # a click is a person's


def test_the_form_holds_what_the_address_says(web: TestClient) -> None:
    page = read(web, '/?q="><script>&state=failed&burden=10&findings=new&priority=stat&since=2026-01-02&sort=state')
    values = {i["name"]: i.get("value") for i in page.tags("input")}
    assert values["q"] == '"><script>'
    assert (values["since"], values["until"], values["sort"], values["dir"]) == ("2026-01-02", "", "state", "asc")
    chosen = [option["value"] for option in page.tags("option") if "selected" in option]
    assert chosen == ["failed", "10", "new", "stat"]
    assert "No studies match these filters" in page.text


def test_the_address_follows_what_is_typed_and_chosen(web: TestClient) -> None:
    asked = {"hx-request": "true"}
    typed = web.get("/?q=hop&state=&dir=desc", headers={**asked, "hx-trigger-name": "q", "hx-trigger": "q"})
    assert typed.headers["hx-replace-url"] == "/?q=hop"
    chosen = web.get("/?q=&state=failed", headers={**asked, "hx-trigger": "state"})
    assert chosen.headers["hx-push-url"] == "/?state=failed"
    polled = web.get("/?state=failed", headers={**asked, POLL: "1"})
    assert not {"hx-push-url", "hx-replace-url"} & set(polled.headers)


def test_a_page_beyond_the_end_is_the_last(web: TestClient, seeded: Seeded) -> None:
    assert len(listed(read(web, "/?page=99"), seeded)) == 8


def test_the_numbers_at_the_head_lead_to_what_they_count(web: TestClient, seeded: Seeded) -> None:
    tiles = [a for a in read(web, "/").tags("a") if (a.get("class") or "").startswith("tile")]
    counts = [len(listed(read(web, str(tile["href"])), seeded)) for tile in tiles]
    page = worklist_page(seeded.ledger)
    assert [tile.number for tile in page.tiles] == counts == [1, 1, 1, 1, 2, 1]


def test_a_study_fetched_to_compare_with_is_shown_when_asked_for(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    uid = seeder.receive("old", "Hopper^Grace", "P-1001")
    from sqlalchemy import update

    from node.ledger.models import studies

    with seeder.ledger.engine.begin() as connection:
        connection.execute(update(studies).values(fetched=True))
    assert worklist_page(seeder.ledger).lines == ()
    page = worklist_page(seeder.ledger, ListQuery(earlier="1"))
    seeder.ledger.close()
    assert [line.uid for line in page.lines] == [uid]
    assert page.lines[0].fetched
    assert page.has_fetched


def test_a_line_says_how_much_where_what_is_new_and_who_verified_it(seeded: Seeded) -> None:
    (row,) = [row for row in seeded.ledger.worklist() if row.study.study_instance_uid == seeded.studies["delivered"]]
    changed = row.__class__(row.study, row.state, row.job, FindingCounts(7, 4, 3, "mixed", 3, "mild", "Osler^William"))
    line = study_line(changed)
    assert (line.pattern, line.change, line.changed, line.verified_by, line.person) == (
        "mixed", "3 new, ARIA-H mild", True, "William Osler", "F 78 y",
    )  # fmt: skip
    same = study_line(row.__class__(row.study, row.state, row.job, FindingCounts(7, 4, 3, "none", 0, "none")))
    assert (same.pattern, same.change, same.changed) == ("", "none new", False)
    alone = study_line(row.__class__(row.study, row.state, row.job, FindingCounts(7, 4, 3)))
    assert (alone.pattern, alone.change) == ("", "")


def test_what_a_list_shows_comes_from_the_findings() -> None:
    document = make_findings("1.2.3", 7).to_json()
    document["change"] = {"assessed": True, "new": 2, "aria_h": "mild"}
    document["verification"] = {"observer": "Osler^William", "organisation": "", "at": "2026-11-21T10:00:00+00:00"}
    assert findings_columns(document) == {
        "total": 7, "definite": 4, "possible": 3, "pattern": "mixed", "new": 2, "aria_h": "mild",
        "verified_by": "Osler^William", "limits": "",
    }  # fmt: skip
    document["series"]["phase"] = None
    document["quality"] = {"warnings": ["the slices cover 39 % of the brain"], "measures": {"coverage": 0.39}}
    assert findings_columns(document)["limits"] == "39 % of the brain; no phase"
    document["change"]["assessed"] = False
    assert (findings_columns(document)["new"], findings_columns(document)["aria_h"]) == (None, "")
    assert findings_columns({})["total"] == 0


def test_what_limits_a_result_is_a_chip_in_its_row(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    seeder.receive("one", "Hopper^Grace", "P-1001")
    seeder.settle("one")
    seeder.open("one")
    constant = "profile default was trained on simulated images"
    found = make_findings(seeder.studies["one"], 2, ("the slices cover 39 % of the brain", constant))
    found = replace(
        found, placement=Placement(False, "the brain does not fit"), image_quality=ImageQuality(coverage=0.39)
    )
    seeder.analyse("one", 2, findings=found)
    (line,) = worklist_page(seeder.ledger).lines
    with TestClient(local_app(tmp_path, seeder.ledger), base_url="http://127.0.0.1:8080") as web:
        html = web.get("/").text
    seeder.ledger.close()
    assert line.limits == ("39 % of the brain", "location not assessed")
    for limit in line.limits:
        assert f'<span class="chip limit">{limit}</span>' in html
    assert "simulated" not in html


def test_new_bleeds_can_be_asked_for(tmp_path: Path) -> None:
    seeder = Seeder(tmp_path)
    for key, lesions in (("one", 2), ("two", 3)):
        seeder.receive(key, f"{key}^X", key)
        seeder.settle(key)
        seeder.open(key, Priority.ROUTINE)
        number = seeder.jobs[key]
        seeder.ledger.claim_job(number, "worker-1", 30)
        document = make_findings(seeder.studies[key], lesions).to_json()
        document["change"] = {"assessed": True, "new": lesions - 2, "aria_h": "none"}
        seeder.ledger.finish_analysis(number, "worker-1", document, [])
    page = worklist_page(seeder.ledger, ListQuery(findings="new"))
    seeder.ledger.close()
    assert [(line.uid, line.change) for line in page.lines] == [(seeder.studies["two"], "1 new")]


HOSTILE_NAMES = {
    "markup": "<img src=x onerror=alert(1)>^&lt;b&gt;",
    "control": "Doe\x1b[31m^Jane\x07\x85",
    "turned": "Doe\u202eenaJ^\u2066X\u2069",
    "hebrew": "כהן^דוד",
    "template": "{{ 7 * 7 }}^{% raw %}",
    "newline": "Doe\r\nSet-Cookie: x=1^Jane",
    "long": "x" * 5000,
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str]]]:
    seeder = Seeder(tmp_path_factory.mktemp("hostile"))
    for key, name in HOSTILE_NAMES.items():
        seeder.receive(key, name, name[:60], name[:60], images=1)
    with TestClient(
        local_app(seeder.data_dir, seeder.ledger),
        base_url="http://localhost",
    ) as client:
        yield client, seeder.studies
    seeder.ledger.close()


@pytest.mark.parametrize("key", HOSTILE_NAMES)
def test_a_name_of_any_kind_stays_text_and_in_its_place(hostile: tuple[TestClient, dict[str, str]], key: str) -> None:
    client, studies = hostile
    for path in ("/", f"/studies/{studies[key]}", "/audit", f"/?q={quote(HOSTILE_NAMES[key][:20])}"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert not set(answer.text) & {"\x1b", "\x07", "\x85", "\u202e", "\u2066", "\u2069"}
        page = Page(answer.text)
        assert all((script.get("src") or "").startswith("/static/") for script in page.tags("script"))
        assert all("onerror" not in attributes for _, attributes in page.elements)
        assert key != "template" or path == "/audit" or "{{ 7 * 7 }}" in page.text
    assert client.get("/").text.count('class="row"') == len(HOSTILE_NAMES)


@given(st.text())
def test_what_is_shown_has_no_control_and_no_turn_and_the_same_length(text: str) -> None:
    out = printable(text)
    assert len(out) == len(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in out)
    assert printable(out) == out
    if text.isprintable():
        assert out == text


@pytest.mark.parametrize("name", ["כהן, דוד", "محمد", "O'Brien, Áine", "山田, 太郎", "नमस्ते", "می\u200cخواهم"])
def test_names_in_every_script_stay_as_they_are(name: str) -> None:
    assert printable(name) == name


ASKED = st.builds(
    ListQuery,
    q=st.text().map(lambda text: " ".join("".join(c if c.isprintable() else " " for c in text[:100]).split())),
    state=st.sampled_from(["", *STATES]),
    burden=st.sampled_from(["", *BURDENS]),
    findings=st.sampled_from(["", *FINDINGS]),
    priority=st.sampled_from(["", *PRIORITIES]),
    profile=st.sampled_from(["", "frst", "frst+cnn3d"]),
    since=st.dates(min_value=datetime(1900, 1, 1).date(), max_value=datetime(2999, 1, 1).date()).map(str) | st.just(""),
    until=st.just("") | st.just("2026-11-21"),
    earlier=st.sampled_from(["", "1"]),
    sort=st.sampled_from(list(SORTS)),
    descending=st.booleans(),
    page=st.integers(0, 99_999),
)


@given(ASKED)
def test_an_address_says_all_of_a_view(asked: ListQuery) -> None:
    address = urlsplit(asked.address)
    assert (address.netloc, address.path) == ("", "/")
    assert ListQuery.read(dict(parse_qsl(address.query))) == asked


@given(st.dictionaries(st.sampled_from([*ListQuery.__dataclass_fields__, "dir", "other"]), st.text()))
def test_no_address_is_an_error(given_words: dict[str, str]) -> None:
    asked = ListQuery.read(given_words)
    assert asked.filters.states in {(), *(tuple(s.value for s in states) for _, states in STATES.values())}
    assert ListQuery.read(dict(parse_qsl(urlsplit(asked.address).query))) == asked


def test_every_state_can_be_asked_for() -> None:
    assert {state for _, states in STATES.values() for state in states} == set(StudyState)


def test_a_head_pressed_twice_turns_the_order_round() -> None:
    for sort, first in SORTS.items():
        once = ListQuery(q="x", page=3).sorted_by(sort)
        again = once.sorted_by(sort)
        if sort.value != "received":
            assert once.descending is first
        assert again.descending is not once.descending
        assert once.page == 0


def test_the_time_of_the_list_is_said(web: TestClient) -> None:
    assert f"as of {datetime.now(UTC).astimezone():%Y-%m-%d %H:}" in read(web, "/").text

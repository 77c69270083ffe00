"""Only who signed in sees patients; only who means to changes anything; and both are written down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from node import passwords
from node.config import Settings, load_settings
from node.ledger import Ledger
from node.ledger.access_records import Action, Role, SessionKind
from node.worklist import sign_in as sign_in_module
from node.worklist.access import POLL, Reader, new_token, token_hash
from node.worklist.app import create_app, server_config
from node.worklist.limits import LedgerStorage
from tests.node.conftest import Clock
from tests.node.people import ADDRESS, CHEAP, PASSWORD, add, browser, form_token, sign_in
from tests.node.seeded import Seeder

OPEN = {"/healthz", "/metrics", "/sign-in", "/openapi.json"}


@pytest.fixture(autouse=True)
def _fast_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", CHEAP)


@pytest.fixture
def ledger(fast_folder: Path, sqlite_template: bytes, clock: Clock) -> Iterator[Ledger]:
    path = fast_folder / "ledger.sqlite3"
    path.write_bytes(sqlite_template)
    opened = Ledger(f"sqlite:///{path}", clock=clock)
    add(opened, "ada", Role.VIEWER, "Ada <b>Lovelace</b>")
    add(opened, "grace", Role.READER)
    add(opened, "root", Role.ADMINISTRATOR)
    yield opened
    opened.close()


def settings_for(folder: Path, **worklist: object) -> Settings:
    return load_settings(None, data_dir=folder, worklist={"host": "0.0.0.0", **worklist})


@pytest.fixture
def app(ledger: Ledger, fast_folder: Path) -> FastAPI:
    return create_app(settings_for(fast_folder), ledger)


@pytest.fixture
def web(app: FastAPI) -> Iterator[TestClient]:
    with browser(app) as client:
        yield client


def actions(ledger: Ledger) -> list[tuple[str, str]]:
    return [(entry.user_name, entry.action) for entry in reversed(ledger.audit()) if entry.user_name != "test"]


def test_without_signing_in_there_is_nothing_to_see(web: TestClient, app: FastAPI) -> None:
    paths = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
    assert {"/", "/studies/{uid}", "/api/jobs", "/audit", "/account"} <= paths
    for path in sorted(paths - OPEN):
        answer = web.get(path.replace("{uid}", "1.2.3").replace("{number}", "1"))
        assert answer.status_code in (303, 401), path
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/sign-in")


def test_programs_are_told_to_show_a_token(web: TestClient) -> None:
    answer = web.get("/api/jobs")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_health_and_metrics_stay_open_for_programs(web: TestClient) -> None:
    assert web.get("/metrics").status_code == 200
    assert web.get("/healthz").status_code in (200, 503)  # there is no Redis here


def test_after_signing_in_the_page_that_was_asked_for_opens(web: TestClient) -> None:
    asked = web.get("/?q=Hopper&sort=burden")
    assert asked.headers["location"] == "/sign-in?next=%2F%3Fq%3DHopper%26sort%3Dburden"
    answer = sign_in(web, " Ada ", next="/?q=Hopper&sort=burden")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=Hopper&sort=burden")
    page = web.get("/")
    assert page.status_code == 200
    assert "Ada &lt;b&gt;Lovelace&lt;/b&gt;" in page.text


def test_the_cookie_is_out_of_reach_and_new_after_signing_in(web: TestClient, ledger: Ledger) -> None:
    web.get("/sign-in")
    before = web.cookies["cmbnode"]
    header = sign_in(web, "ada").headers["set-cookie"]
    assert web.cookies["cmbnode"] != before
    for word in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in header
    assert ledger.session_account(token_hash(before), 60) is None
    dump = Path(ledger.engine.url.database or "").read_bytes()
    assert web.cookies["cmbnode"].encode() not in dump
    assert PASSWORD.encode() not in dump


def test_behind_a_proxy_with_tls_the_cookie_is_secure(ledger: Ledger, fast_folder: Path) -> None:
    app = create_app(settings_for(fast_folder, url="https://cmb.example"), ledger)
    with browser(app, "https://cmb.example") as web:
        header = web.get("/sign-in").headers["set-cookie"]
        assert header.startswith("__Host-cmbnode=")
        assert header.endswith("; Secure")
        assert sign_in(web, "ada").status_code == 303
        assert web.get("/").status_code == 200


@pytest.mark.parametrize("name", ["ada", "nobody", "off", "", "ADA\n", "x" * 200, "'; drop table users; --"])
def test_a_wrong_password_tells_nothing_about_the_name(web: TestClient, ledger: Ledger, name: str) -> None:
    add(ledger, "off")
    ledger.disable_account("off", actor="test")
    answer = sign_in(web, name, PASSWORD if name == "off" else "not the password")
    assert answer.status_code == 401
    assert sign_in_module.WRONG in answer.text
    assert web.get("/").status_code == 303


def test_an_unknown_name_costs_a_check_too(web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str | None] = []
    real = sign_in_module.verify_password

    def noting(kept: str | None, password: str) -> bool:
        checked.append(kept)
        return real(kept, password)

    monkeypatch.setattr(sign_in_module, "verify_password", noting)
    sign_in(web, "nobody", "not the password")
    sign_in(web, "ada", "not the password")
    assert checked[0] is None
    assert checked[1] is not None


def test_wrong_passwords_make_a_name_wait_in_every_process(
    web: TestClient, ledger: Ledger, fast_folder: Path, clock: Clock
) -> None:
    for _ in range(5):
        assert sign_in(web, "ada", "not the password").status_code == 401
    refused = sign_in(web, "ada")
    assert refused.status_code == 429
    assert "Too many wrong attempts" in refused.text
    assert int(refused.headers["retry-after"]) > 0
    with browser(create_app(settings_for(fast_folder), ledger)) as other:
        assert sign_in(other, "ada").status_code == 429
        assert sign_in(other, "grace").status_code == 303
    clock.forward(301)
    assert sign_in(web, "ada").status_code == 303


def test_an_unknown_name_waits_as_a_known_one(web: TestClient) -> None:
    statuses = [sign_in(web, "nobody", "not the password").status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


def test_wrong_passwords_make_an_address_wait(ledger: Ledger, fast_folder: Path) -> None:
    app = create_app(settings_for(fast_folder, wrong_per_address=3), ledger)
    with browser(app) as web:
        statuses = [sign_in(web, f"name{n}", "not the password").status_code for n in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert sign_in(web, "ada").status_code == 429


def test_the_right_password_is_no_attempt(ledger: Ledger, fast_folder: Path) -> None:
    app = create_app(settings_for(fast_folder, wrong_per_address=2, wrong_per_account=2), ledger)
    with browser(app) as web:
        sign_in(web, "ada", "not the password")
        for _ in range(4):
            assert sign_in(web, "ada").status_code == 303
            web.post("/sign-out", data={"csrf_token": form_token(web, "/")})
    storage = LedgerStorage(ledger)
    assert storage.check()
    assert storage.get_moving_window("LIMITER/account/ada", 2, 300)[1] == 0


def test_a_session_ends_when_nobody_uses_it(web: TestClient, clock: Clock) -> None:
    sign_in(web, "ada")
    for _ in range(3):
        clock.forward(3000)
        assert web.get("/").status_code == 200
    clock.forward(3601)
    assert web.get("/").status_code == 303


def test_a_page_that_asks_for_itself_keeps_no_session_alive(web: TestClient, clock: Clock) -> None:
    sign_in(web, "ada")
    poll = {POLL: "1", "hx-request": "true", "hx-current-url": f"{ADDRESS}/?state=failed"}
    for _ in range(35):
        clock.forward(100)
        assert web.get("/", headers=poll).status_code == 200
    clock.forward(101)
    over = web.get("/", headers=poll)
    assert over.status_code == 401
    assert over.headers["hx-redirect"] == "/sign-in?next=%2F%3Fstate%3Dfailed"


def test_a_session_ends_after_its_longest_time(web: TestClient, clock: Clock) -> None:
    sign_in(web, "ada")
    for _ in range(14):
        clock.forward(3000)
        assert web.get("/").status_code == 200
    clock.forward(3000)
    assert web.get("/").status_code == 303


def test_signing_out_ends_the_session_on_the_server(web: TestClient) -> None:
    sign_in(web, "ada")
    token = web.cookies["cmbnode"]
    assert web.post("/sign-out", data={"csrf_token": form_token(web, "/")}).status_code == 303
    web.cookies.set("cmbnode", token)
    assert web.get("/").status_code == 303


@pytest.mark.parametrize(
    ("origin", "token", "status"),
    [
        (ADDRESS, True, 303),
        (None, True, 303),
        (ADDRESS, False, 403),
        (None, False, 403),
        ("https://attacker.example", True, 403),
        ("null", True, 403),
        ("http://127.0.0.1:9999", True, 403),
    ],
)
def test_only_a_form_of_this_node_changes_anything(
    web: TestClient, origin: str | None, token: bool, status: int
) -> None:
    sign_in(web, "ada")
    data = {"csrf_token": form_token(web, "/") if token else "0" * 64}
    del web.headers["origin"]
    answer = web.post("/sign-out", data=data, headers={"origin": origin} if origin else {})
    assert answer.status_code == status
    assert web.get("/").status_code == (303 if status == 303 else 200)


def test_another_browsers_token_does_not_fit(app: FastAPI, web: TestClient) -> None:
    with browser(app) as other:
        stolen = form_token(other)
    answer = web.post("/sign-in", data={"csrf_token": stolen, "name": "ada", "password": PASSWORD})
    assert answer.status_code == 403


def test_a_request_from_another_site_is_seen_without_an_origin_too(web: TestClient) -> None:
    token = form_token(web)
    del web.headers["origin"]
    answer = web.post("/sign-in", data={"csrf_token": token}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


def test_the_header_of_every_page_serves_htmx(web: TestClient) -> None:
    sign_in(web, "ada")
    token = form_token(web, "/")
    assert f'hx-headers=\'{{"X-CSRF-Token": "{token}"}}\'' in web.get("/").text
    assert web.post("/sign-out", headers={"x-csrf-token": token}).status_code == 303


def test_roles_are_ordered(app: FastAPI, ledger: Ledger) -> None:
    @app.post("/probe")
    def probe(user: Reader) -> dict[str, str]:
        return {"name": user.name}

    outcome = {}
    for name in ("ada", "grace", "root"):
        with browser(app) as web:
            sign_in(web, name)
            headers = {"x-csrf-token": form_token(web, "/")}
            outcome[name] = (web.post("/probe", headers=headers).status_code, web.get("/audit").status_code)
    assert outcome == {"ada": (403, 403), "grace": (200, 403), "root": (200, 200)}


def test_a_role_taken_away_counts_at_once(web: TestClient, ledger: Ledger) -> None:
    sign_in(web, "root")
    assert web.get("/audit").status_code == 200
    ledger.set_role("root", Role.VIEWER, actor="test")
    answer = web.get("/audit")
    assert answer.status_code == 403
    assert "This takes the role administrator; you are signed in as viewer." in answer.text
    ledger.disable_account("root", actor="test")
    assert web.get("/").status_code == 303


def test_changing_the_password_ends_every_other_session(app: FastAPI, ledger: Ledger) -> None:
    new = "a new sentence to remember"
    with browser(app) as here, browser(app) as there:
        sign_in(here, "ada")
        sign_in(there, "ada")
        fields = {"csrf_token": form_token(here, "/account"), "new_password": new, "again": new}
        assert here.post("/account", data={**fields, "password": "not it"}).status_code == 403
        assert here.post("/account", data={**fields, "password": PASSWORD, "again": "differs"}).status_code == 422
        short = {"new_password": "short", "again": "short"}
        assert "fewer than 12" in here.post("/account", data={**fields, "password": PASSWORD, **short}).text
        assert there.get("/").status_code == 200
        assert "The password is changed" in here.post("/account", data={**fields, "password": PASSWORD}).text
        assert here.get("/").status_code == 200
        assert there.get("/").status_code == 303
        assert sign_in(there, "ada").status_code == 401
        assert sign_in(there, "ada", new).status_code == 303


def test_a_program_shows_a_token_and_no_form(app: FastAPI, ledger: Ledger, clock: Clock) -> None:
    @app.post("/api/probe")
    def probe(user: Reader) -> dict[str, str]:
        return {"name": user.name}

    token = new_token()
    ledger.open_session(token_hash(token), "grace", SessionKind.PROGRAM, 86_400)
    with TestClient(app, base_url=ADDRESS) as program:
        shown = {"authorization": f"Bearer {token}"}
        assert program.post("/api/probe", headers=shown).json() == {"name": "grace"}
        assert program.post("/api/probe", headers={"authorization": "Bearer nonsense"}).status_code == 401
        clock.forward(80_000)  # no idleness for a program
        assert program.get("/api/jobs", headers=shown).status_code == 200
        clock.forward(7000)
        assert program.get("/api/jobs", headers=shown).status_code == 401


def test_who_looked_and_who_changed_is_written_down_once(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    uid = seeder.receive("one", "Hopper^Grace", "P-1001")
    add(seeder.ledger, "root", Role.ADMINISTRATOR)
    with browser(create_app(settings_for(fast_folder / "node"), seeder.ledger)) as web:
        sign_in(web, "root", "not the password")
        sign_in(web, "hunter2 by mistake", "root")
        sign_in(web, "root")
        web.get("/?q=Hopper")
        web.get("/?q=Hopper", headers={POLL: "1"})
        web.get(f"/studies/{uid}")
        web.get(f"/studies/{uid}", headers={POLL: "1"})
        web.get("/studies/1.2.3")
        page = web.get("/audit", params={"q": "hopper"}).text
        whole = web.get("/audit").text
        web.post("/sign-out", data={"csrf_token": form_token(web, "/audit")})
    expected = [
        ("root", Action.REFUSED),
        ("?", Action.REFUSED),
        ("root", Action.SIGNED_IN),
        ("root", Action.LIST),
        ("root", Action.STUDY),
        ("root", Action.AUDIT),
        ("root", Action.AUDIT),
        ("root", Action.AUDIT),
        ("root", Action.SIGNED_OUT),
    ]
    entries = seeder.ledger.audit()
    seeder.ledger.close()
    assert actions_of(entries) == expected
    assert "hunter2" not in " ".join(f"{entry.user_name}{entry.detail}" for entry in entries)
    assert "Hopper, Grace" in page
    assert "sign-in refused</b>" not in page
    assert "sign-in refused</b>" in whole


def actions_of(entries: list) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(entry.user_name, entry.action) for entry in reversed(entries) if entry.user_name != "test"]


def test_where_nobody_signs_in_the_local_user_is_written_down(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    uid = seeder.receive("one", "Hopper^Grace", "P-1001")
    with browser(create_app(load_settings(None, data_dir=fast_folder / "node"), seeder.ledger)) as web:
        page = web.get(f"/studies/{uid}")
        assert web.get("/account").status_code == 404
        assert web.get("/sign-in").status_code == 303
        assert web.get("/audit").status_code == 200
    assert actions_of(seeder.ledger.audit()) == [("local", Action.STUDY), ("local", Action.AUDIT)]
    seeder.ledger.close()
    assert "Sign-in is switched off" not in page.text
    assert "Sign out" not in page.text


@pytest.mark.parametrize(("sign_in_set", "host", "status", "notice"), [
    (None, "127.0.0.1", 200, False),
    (None, "0.0.0.0", 303, False),
    (True, "127.0.0.1", 303, False),
    (False, "0.0.0.0", 200, True),
])  # fmt: skip
def test_signing_in_is_compulsory_off_loopback_unless_set_off(
    ledger: Ledger, fast_folder: Path, sign_in_set: bool | None, host: str, status: int, notice: bool
) -> None:
    app = create_app(settings_for(fast_folder, host=host, sign_in=sign_in_set), ledger)
    with browser(app) as web:
        answer = web.get("/")
    assert answer.status_code == status
    assert ("Sign-in is switched off" in answer.text) is notice


@pytest.mark.parametrize(
    "header", [{"x-forwarded-for": "192.0.2.7"}, {"forwarded": "for=192.0.2.7"}, {"x-real-ip": "192.0.2.7"}]
)
def test_behind_a_proxy_that_nobody_told_it_of_people_sign_in_all_the_same(
    ledger: Ledger, fast_folder: Path, header: dict[str, str]
) -> None:
    with browser(create_app(settings_for(fast_folder, host="127.0.0.1"), ledger)) as web:
        assert web.get("/").status_code == 200
        assert web.get("/", headers=header).status_code == 303
        web.headers.update(header)
        assert sign_in(web, "ada").status_code == 303
        assert "Sign out" in web.get("/").text


@pytest.mark.parametrize("told", [{"url": "https://cmb.example"}, {"hosts": ["cmb.example"]}])
def test_a_name_for_others_is_for_others(fast_folder: Path, told: dict[str, object]) -> None:
    part = settings_for(fast_folder, host="127.0.0.1", **told).worklist
    assert part.requires_sign_in
    assert not part.open_to_all
    assert part.model_copy(update={"sign_in": False}).open_to_all
    assert not settings_for(fast_folder, host="127.0.0.1", hosts=["localhost"]).worklist.requires_sign_in


def test_a_node_without_anybody_says_how_to_add_the_first(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    app = create_app(settings_for(fast_folder / "node"), seeder.ledger)
    with browser(app) as web:
        assert "cmbnode users add NAME --role administrator" in web.get("/sign-in").text
        add(seeder.ledger, "root", Role.ADMINISTRATOR)
        assert "cmbnode users add" not in web.get("/sign-in").text
    seeder.ledger.close()


@pytest.mark.parametrize(("peer", "seen"), [("10.1.0.5", "192.0.2.7"), ("10.9.0.5", "10.9.0.5")])
def test_an_address_is_believed_from_a_named_proxy_only(
    ledger: Ledger, fast_folder: Path, peer: str, seen: str
) -> None:
    settings = settings_for(fast_folder, proxies=["10.1.0.0/16"])
    config = server_config(create_app(settings, ledger), settings.worklist)
    config.load()
    with TestClient(config.loaded_app, base_url=ADDRESS, client=(peer, 5000), follow_redirects=False) as web:
        web.headers["x-forwarded-for"] = "192.0.2.7"
        sign_in(web, "ada", "not the password")
    assert ledger.audit()[0].address == seen


def test_more_than_a_form_can_hold_is_refused(web: TestClient) -> None:
    token = form_token(web)
    answer = web.post("/sign-in", data={"csrf_token": token, "name": "x" * 300_000})
    assert answer.status_code == 413


@given(st.text() | st.builds(lambda a, b: a + b, st.sampled_from(["//", "/\\", "/\t/", "http://", "/"]), st.text()))
def test_signing_in_never_leads_to_another_site(address: str) -> None:
    led = sign_in_module._local(address)
    assert led.startswith("/")
    assert not led.startswith(("//", "/\\"))
    assert led.isprintable()


def test_the_audit_is_kept_as_long_as_set(ledger: Ledger, clock: Clock) -> None:
    ledger.record_access("ada", Action.STUDY, "1.2.3")
    clock.forward(86_400)
    ledger.record_access("ada", Action.STUDY, "1.2.4")
    assert ledger.forget_audit(clock() - timedelta(hours=1)) > 0
    assert [entry.study_instance_uid for entry in ledger.audit()] == ["1.2.4"]

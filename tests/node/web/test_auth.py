"""Only users who have signed in see patients, and only a page of this node changes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import Ledger
from node.roles import SessionKind, UserRole
from node.settings import ConfigError
from node.web import sign_in as sign_in_module
from node.web.app import create_app, server_config
from node.web.auth import LOCAL, POLL, Reader, new_token, token_hash
from node.web.passwords import user_name
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.people import ADDRESS, PASSWORD, add, browser, settings_for, sign_in
from tests.node.seeded import Seeder

OPEN = {"/healthz", "/metrics", "/sign-in", "/openapi.json"}


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


def test_a_visitor_who_has_not_signed_in_gets_no_cookie(web: TestClient) -> None:
    for answer in (web.get("/"), web.get("/sign-in"), web.get("/static/icon.svg"), sign_in(web, "ada", "wrong")):
        assert "set-cookie" not in answer.headers


def test_the_cookie_is_out_of_reach_and_new_for_every_session(web: TestClient, ledger: Ledger) -> None:
    web.cookies.set("cmbnode", "a token that another site planted", domain="127.0.0.1", path="/")
    tokens = set()
    for _ in range(2):
        header = sign_in(web, "ada").headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(header.split("; "))
        tokens.add(header.partition(";")[0])
    assert len(tokens) == 2
    assert ledger.session_account(token_hash("a token that another site planted"), 60) is None
    dump = Path(ledger.engine.url.database or "").read_bytes()
    assert not any(token.partition("=")[2].encode() in dump for token in tokens)
    assert PASSWORD.encode() not in dump


def test_behind_a_proxy_with_tls_the_cookie_is_secure(ledger: Ledger, fast_folder: Path) -> None:
    app = create_app(settings_for(fast_folder, url="https://cmb.example"), ledger)
    with browser(app, "https://cmb.example") as web:
        header = sign_in(web, "ada").headers["set-cookie"]
        assert header.startswith("__Host-cmbnode=")
        assert "Secure" in header.split("; ")
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
    assert "Too many failed attempts" in refused.text
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
            web.post("/sign-out")
    assert ledger.count_attempts("account/ada", 300) == 0


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
    answer = web.post("/sign-out")
    assert answer.status_code == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    web.cookies.set("cmbnode", token)
    assert web.get("/").status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),  # the user reloads the page
        ({"origin": ADDRESS}, 303),
        ({"referer": f"{ADDRESS}/account"}, 303),
        (
            {"sec-fetch-site": "same-origin", "origin": "https://cmb.example"},
            303,
        ),  # behind a proxy that renames the host
        ({}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": ADDRESS}, 403),
        ({"sec-fetch-site": ""}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "https://attacker.example", "referer": ADDRESS}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "null", "referer": ""}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": f"{ADDRESS}.attacker.example"}, 403),
        ({"origin": "http://["}, 403),
        ({"referer": f"https://attacker.example/{ADDRESS}"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/sign-out", "/sign-in", "/account"])
def test_only_a_page_of_this_node_changes_anything(
    web: TestClient, ledger: Ledger, headers: dict[str, str], status: int, path: str
) -> None:
    sign_in(web, "ada")
    before = ledger.audit(limit=1)[0].id
    del web.headers["origin"]
    answer = web.post(path, headers=headers, data={"name": "ada", "password": PASSWORD})
    assert (answer.status_code == 403) is (status == 403)
    if status == 403:
        assert web.get("/account").status_code == 200
        assert ledger.audit(limit=1)[0].id == before


def test_a_token_in_a_header_needs_no_origin_but_must_be_right(web: TestClient) -> None:
    sign_in(web, "ada")
    del web.headers["origin"]
    assert web.post("/account", headers={"authorization": "Bearer nonsense"}).status_code in (303, 401)
    assert web.post("/account", headers={"authorization": "Basic nonsense"}).status_code == 403


def test_roles_are_ordered(app: FastAPI, ledger: Ledger) -> None:
    @app.post("/probe")
    def probe(user: Reader) -> dict[str, str]:
        return {"name": user.name}

    outcome = {}
    for name in ("ada", "grace", "root"):
        with browser(app) as web:
            sign_in(web, name)
            outcome[name] = (web.post("/probe").status_code, web.get("/audit").status_code)
    assert outcome == {"ada": (403, 403), "grace": (200, 403), "root": (200, 200)}


def test_a_role_taken_away_counts_at_once(web: TestClient, ledger: Ledger) -> None:
    sign_in(web, "root")
    assert web.get("/audit").status_code == 200
    add(ledger, "other", UserRole.ADMINISTRATOR)
    ledger.set_role("root", UserRole.VIEWER, actor="test")
    answer = web.get("/audit")
    assert answer.status_code == 403
    assert "This requires the role administrator; you are signed in as viewer." in answer.text
    ledger.disable_account("root", actor="test")
    assert web.get("/").status_code == 303


def test_changing_the_password_ends_every_other_session(app: FastAPI, ledger: Ledger) -> None:
    new = "a new sentence to remember"
    with browser(app) as here, browser(app) as there:
        sign_in(here, "ada")
        sign_in(there, "ada")
        fields = {"new_password": new, "again": new}
        assert here.post("/account", data={**fields, "password": "not it"}).status_code == 403
        assert here.post("/account", data={**fields, "password": PASSWORD, "again": "differs"}).status_code == 422
        short = {"new_password": "short", "again": "short"}
        assert "fewer than 12" in here.post("/account", data={**fields, "password": PASSWORD, **short}).text
        assert there.get("/").status_code == 200
        assert "The password has been changed" in here.post("/account", data={**fields, "password": PASSWORD}).text
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


def test_no_account_can_have_the_name_of_everyone() -> None:
    with pytest.raises(InputError):
        user_name(LOCAL.name)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "10.0.0.7"])
def test_users_sign_in_on_every_address(ledger: Ledger, fast_folder: Path, host: str) -> None:
    with browser(create_app(settings_for(fast_folder, host=host), ledger)) as web:
        assert web.get("/").status_code == 303


@pytest.mark.parametrize(
    "setting",
    [
        {"host": "0.0.0.0"},
        {"host": "10.0.0.7"},
        {"url": "https://cmb.example"},
        {"hosts": ["cmb.example"]},
        {"proxies": ["10.0.0.0/8"]},
    ],
)
def test_sign_in_cannot_be_switched_off_for_other_machines(fast_folder: Path, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="sign_in = false needs a loopback host"):
        settings_for(fast_folder, **{"host": "127.0.0.1", **setting, "sign_in": False})


@pytest.mark.parametrize(
    "header", [{"x-forwarded-for": "192.0.2.7"}, {"forwarded": "for=192.0.2.7"}, {"x-real-ip": "192.0.2.7"}]
)
def test_where_sign_in_is_switched_off_a_request_through_a_proxy_needs_it(
    ledger: Ledger, fast_folder: Path, header: dict[str, str]
) -> None:
    app = create_app(settings_for(fast_folder, host="127.0.0.1", sign_in=False), ledger)
    with browser(app) as web:
        assert web.get("/").status_code == 200
        assert web.get("/", headers=header).status_code == 303
        web.headers.update(header)
        assert sign_in(web, "ada").status_code == 303
        assert "Sign out" in web.get("/").text


def test_a_node_without_anybody_says_how_to_add_the_first(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    app = create_app(settings_for(fast_folder / "node"), seeder.ledger)
    with browser(app) as web:
        assert "cmbnode users add NAME --role administrator" in web.get("/sign-in").text
        add(seeder.ledger, "root", UserRole.ADMINISTRATOR)
        assert "cmbnode users add" not in web.get("/sign-in").text
    seeder.ledger.close()


@pytest.mark.parametrize(("peer", "seen"), [("10.1.0.5", "192.0.2.7"), ("10.9.0.5", "10.9.0.5")])
def test_an_address_is_believed_from_a_named_proxy_only(
    ledger: Ledger, fast_folder: Path, peer: str, seen: str
) -> None:
    settings = settings_for(fast_folder, proxies=["10.1.0.0/16"])
    config = server_config(create_app(settings, ledger))
    config.load()
    with TestClient(config.loaded_app, base_url=ADDRESS, client=(peer, 5000), follow_redirects=False) as web:
        web.headers.update({"x-forwarded-for": "192.0.2.7", "origin": ADDRESS})
        sign_in(web, "ada", "not the password")
    assert ledger.audit()[0].address == seen


def test_more_than_a_form_can_hold_is_refused(web: TestClient) -> None:
    answer = web.post("/sign-in", data={"name": "x" * 300_000})
    assert answer.status_code == 413


@given(st.text() | st.builds(lambda a, b: a + b, st.sampled_from(["//", "/\\", "/\t/", "http://", "/"]), st.text()))
def test_signing_in_never_leads_to_another_site(address: str) -> None:
    led = sign_in_module._local(address)
    assert led.startswith("/")
    assert not led.startswith(("//", "/\\"))
    assert led.isprintable()

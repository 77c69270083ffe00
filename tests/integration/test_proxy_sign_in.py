"""A real nginx signs users in as the page on installation says, and lets nobody through who claims to be a user."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from node.ledger import Ledger
from node.ledger.access_records import AuditAction
from node.roles import SessionKind, UserRole
from node.settings import load_settings
from node.web.app import create_app
from node.web.auth import token_hash
from tests.nginx import run_nginx
from tests.node.people import add
from tests.ports import free_port
from tests.web_server import port_of, serving

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "install.md"
PROXY = "127.0.0.2"
"""The address that nginx connects from; whoever connects to the node directly comes from 127.0.0.1."""

# In place of Authelia: the cookie says who has signed in there.
AUTHELIA = """
map $cookie_person $groups_there {{ jane "staff,radiology"; root "pacs-team"; default "staff"; }}
server {{
    listen 127.0.0.1:{authelia};
    location = /api/authz/auth-request {{
        if ($cookie_person = "") {{ return 401; }}
        add_header Remote-User $cookie_person;
        add_header Remote-Name "Dr. Jané $cookie_person";
        add_header Remote-Groups $groups_there;
        return 200;
    }}
}}
server {{
    listen 127.0.0.1:{front};
    proxy_bind {proxy};
{snippet}
}}
"""


@dataclass(frozen=True)
class Site:
    """The node, reached through nginx at `front` and directly at `node`."""

    front: str
    node: str
    ledger: Ledger


def documented(language: str, beginning: str) -> str:
    """The example of the page in this language that begins like this."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (example,) = [text for text in found if beginning in text]
    return str(example)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}")
    ledger.upgrade()
    add(ledger, "root", UserRole.ADMINISTRATOR)
    worklist = tomllib.loads(documented("toml", "[worklist.proxy_sign_in]"))["worklist"]
    worklist["proxy_sign_in"]["addresses"] = [PROXY]
    app = create_app(load_settings(None, data_dir=folder, worklist=worklist), ledger)
    front, authelia = free_port(), free_port()
    with serving(app) as server:
        node = f"127.0.0.1:{port_of(server)}"
        snippet = documented("nginx", "auth_request").replace("10.1.2.8:8080", node)
        snippet = snippet.replace("127.0.0.1:9091", f"127.0.0.1:{authelia}")
        servers = AUTHELIA.format(authelia=authelia, front=front, proxy=PROXY, snippet=snippet)
        with run_nginx(folder / "nginx", servers):
            yield Site(f"http://127.0.0.1:{front}", f"http://{node}", ledger)
    ledger.close()


def browser(site: Site, person: str = "", **headers: str) -> httpx.Client:
    """A browser in front of nginx, in which a person has signed in with the identity provider."""
    names = {"accept": "text/html", "origin": site.front, **headers}
    return httpx.Client(base_url=site.front, cookies={"person": person} if person else {}, headers=names, timeout=60)


def test_who_signs_in_with_the_proxy_is_signed_in_here(site: Site) -> None:
    with browser(site, "jane") as web:
        page = web.get("/")
        assert (page.status_code, "Dr. Jané jane" in page.text) == (200, True)
        assert web.get("/administration").status_code == 403  # a reader
        answer = web.post("/sign-out")
        assert (answer.status_code, answer.headers["location"]) == (303, "https://auth.hospital.example/logout")
    entries = [(one.user_name, one.action, one.address) for one in site.ledger.audit() if one.user_name == "jane"]
    assert entries[-1] == ("jane", AuditAction.SIGN_IN, "127.0.0.1")  # the browser's address, not the proxy's
    with browser(site, "root") as web:
        assert web.get("/administration").status_code == 200


def test_who_has_not_signed_in_there_is_led_there(site: Site) -> None:
    with browser(site) as web:
        answer = web.get("/?q=Hopper")
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("https://auth.hospital.example/?rd=")


def test_a_direct_request_with_a_forged_header_is_not_signed_in(site: Site) -> None:
    forged = {"remote-user": "root", "remote-groups": "pacs-team", "x-forwarded-for": PROXY, "accept": "text/html"}
    for path in ("/", "/administration"):
        answer = httpx.get(site.node + path, headers=forged, timeout=60)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")
    assert httpx.get(f"{site.node}/api/jobs", headers=forged, timeout=60).status_code == 401


def test_nginx_clears_a_header_that_a_client_sends_itself(site: Site) -> None:
    forged = {"remote-user": "root", "remote-groups": "pacs-team", "remote-name": "Root"}
    with browser(site, "jane", **forged) as web:
        account = web.get("/account").text
        assert "Signed in as jane (reader)." in account
        assert "Root" not in account
        assert web.get("/administration").status_code == 403
    with browser(site, **forged) as web:
        assert web.get("/").status_code == 302
        assert web.get("/api/jobs").status_code == 401
    with browser(site, "nobody", **forged) as web:  # signed in there, with no role here
        page = web.get("/")
        assert page.status_code == 403
        assert "none of the groups" in page.text


def test_a_program_passes_the_proxy_with_its_token(site: Site) -> None:
    site.ledger.open_session(token_hash("a token"), "root", SessionKind.PROGRAM, 1000)
    with browser(site, authorization="Bearer a token") as program:
        assert program.get("/api/jobs").json() == {"jobs": []}

"""People who sign in, for tests: accounts with known passwords, and a browser that has signed in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from node.ledger import Ledger
from node.ledger.access_records import Role

PASSWORD = "correct horse battery staple"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Argon2 with parameters that cost a test no time."""
HASH = CHEAP.hash(PASSWORD)
ADDRESS = "http://127.0.0.1:8080"


def add(ledger: Ledger, name: str, role: Role = Role.VIEWER, display_name: str = "") -> None:
    """Add an account; everybody has the same password, for a hash takes its time."""
    ledger.add_account(name, display_name, role, HASH, actor="test")


@contextmanager
def browser(app: FastAPI, address: str = ADDRESS) -> Iterator[TestClient]:
    """A browser that follows no redirects."""
    with TestClient(app, base_url=address, follow_redirects=False) as client:
        client.headers["origin"] = address
        client.headers["accept"] = "text/html"
        yield client


def form_token(client: TestClient, page: str = "/sign-in") -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', client.get(page).text)
    assert found is not None
    return found[1]


def sign_in(client: TestClient, name: str, password: str = PASSWORD, **fields: str) -> Response:
    """Fill in the form and send it."""
    token = form_token(client)
    return client.post("/sign-in", data={"csrf_token": token, "name": name, "password": password, **fields})

"""People who sign in, for tests: accounts with known passwords, and a browser that has signed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from node.ledger import Ledger
from node.roles import UserRole
from node.settings import Settings, load_settings
from node.web.app import create_app

PASSWORD = "correct horse battery staple"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Argon2 with parameters that cost a test no time."""
HASH = CHEAP.hash(PASSWORD)
ADDRESS = "http://127.0.0.1:8080"


def add(ledger: Ledger, name: str, role: UserRole = UserRole.VIEWER, display_name: str = "") -> None:
    """Add an account; everybody has the same password, for a hash takes its time."""
    ledger.add_account(name, display_name, role, HASH, actor="test")


def settings_for(folder: Path, **worklist: object) -> Settings:
    """Settings of a node whose worklist other machines can reach."""
    return load_settings(None, data_dir=folder, worklist={"host": "0.0.0.0", **worklist})


def local_app(data_dir: Path, ledger: Ledger, **settings: Any) -> FastAPI:
    """The worklist of a node where sign-in is switched off."""
    return create_app(load_settings(None, data_dir=data_dir, worklist={"sign_in": False}, **settings), ledger)


@contextmanager
def browser(app: FastAPI, address: str = ADDRESS) -> Iterator[TestClient]:
    """A browser that follows no redirects and names the origin of its requests."""
    with TestClient(app, base_url=address, follow_redirects=False) as client:
        client.headers["origin"] = address
        client.headers["accept"] = "text/html"
        yield client


def sign_in(client: TestClient, name: str, password: str = PASSWORD, **fields: str) -> Response:
    """Fill in the form and send it."""
    return client.post("/sign-in", data={"name": name, "password": password, **fields})

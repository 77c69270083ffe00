"""A worklist with three accounts, and a browser that has not signed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from node.ledger import Ledger
from node.roles import UserRole
from node.web import passwords
from node.web.app import create_app
from tests.node.conftest import Clock
from tests.node.people import CHEAP, add, browser, settings_for


@pytest.fixture(autouse=True)
def _fast_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", CHEAP)


@pytest.fixture
def ledger(fast_folder: Path, sqlite_template: bytes, clock: Clock) -> Iterator[Ledger]:
    path = fast_folder / "ledger.sqlite3"
    path.write_bytes(sqlite_template)
    opened = Ledger(f"sqlite:///{path}", clock=clock)
    add(opened, "ada", UserRole.VIEWER, "Ada <b>Lovelace</b>")
    add(opened, "grace", UserRole.READER)
    add(opened, "root", UserRole.ADMINISTRATOR)
    yield opened
    opened.close()


@pytest.fixture
def app(ledger: Ledger, fast_folder: Path) -> FastAPI:
    return create_app(settings_for(fast_folder), ledger)


@pytest.fixture
def web(app: FastAPI) -> Iterator[TestClient]:
    with browser(app) as client:
        yield client

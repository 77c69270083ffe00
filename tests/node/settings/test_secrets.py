"""Passwords come from files of their own: neither in the configuration file nor on a command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic_settings import SettingsError

from node.run.supervisor import child_environment
from node.settings import ConfigError, load_settings
from node.settings.secrets import SECRETS_DIR, secrets_folder

CONFIG = """
database_url = "postgresql+psycopg://cmbnode@postgres/cmbnode"
redis_url = "redis://redis:6379/0"

[destinations.vna]
kind = "stow"
url = "https://vna.example/dicom-web"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv(SECRETS_DIR, str(folder))
    return folder


def test_the_passwords_of_database_and_redis_come_from_files(config: Path, secrets: Path) -> None:
    (secrets / "database_password").write_text("p/w:1@\n")
    (secrets / "redis_password").write_text("hush\n")
    settings = load_settings(config)
    assert settings.ledger_url == "postgresql+psycopg://cmbnode:p%2Fw%3A1%40@postgres/cmbnode"
    assert settings.broker_url == "redis://:hush@redis:6379/0"


def test_a_secret_of_a_destination_is_named_for_its_setting(config: Path, secrets: Path) -> None:
    (secrets / "destinations__vna__token").write_text("hush")
    token = load_settings(config).destinations["vna"].token
    assert token is not None
    assert token.get_secret_value() == "hush"


def test_the_parts_of_the_node_get_the_same_settings(
    config: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "database_password").write_text("hush")
    settings = load_settings(config)
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(SECRETS_DIR)
    assert load_settings(None).model_dump() == settings.model_dump()


def test_the_environment_wins_over_a_file(config: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "redis_password").write_text("from a file")
    monkeypatch.setenv("CMBNODE_REDIS_PASSWORD", "hush")
    assert load_settings(config).broker_url == "redis://:hush@redis:6379/0"


@pytest.mark.parametrize("url", ["redis://:other@redis:6379/0", "redis+socket:///run/redis.sock"])
def test_a_password_that_the_url_cannot_take_is_an_error(config: Path, secrets: Path, url: str) -> None:
    config.write_text(f'redis_url = "{url}"')
    (secrets / "redis_password").write_text("hush")
    with pytest.raises(ConfigError) as caught:
        load_settings(config)
    assert "hush" not in str(caught.value)


def test_a_folder_of_secrets_that_is_not_there_is_an_error(config: Path, secrets: Path) -> None:
    secrets.rmdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(config)


def test_a_secret_of_no_setting_is_an_error(config: Path, secrets: Path) -> None:
    (secrets / "redis_pasword").write_text("hush")
    with pytest.raises(ConfigError, match="redis_pasword: there is no setting"):
        load_settings(config)


@pytest.mark.parametrize("hidden", [".", "redis_password"])
def test_a_secret_that_the_node_may_not_read_is_an_error(secrets: Path, hidden: str) -> None:
    (secrets / "redis_password").write_text("hush")
    (secrets / hidden).chmod(0)
    with _another_user_than_root(secrets), pytest.raises(SettingsError, match="cannot be read"):
        secrets_folder({"redis_password"})


@contextmanager
def _another_user_than_root(reachable: Path) -> Iterator[None]:
    for folder in list(reachable.parents)[:3]:
        folder.chmod(0o755)
    if user := os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_secret_is_shown(config: Path, secrets: Path) -> None:
    for name in ("database_password", "redis_password", "destinations__vna__token"):
        (secrets / name).write_text("hush")
    settings = load_settings(config)
    assert "hush" in settings.ledger_url
    assert "hush" in str(settings.broker_url)
    assert "hush" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_token_that_no_header_can_hold_is_an_error(config: Path, secrets: Path) -> None:
    (secrets / "destinations__vna__token").write_text("two\nlines")
    with pytest.raises(ConfigError, match="a token consists of printable ASCII characters") as caught:
        load_settings(config)
    assert "lines" not in str(caught.value)

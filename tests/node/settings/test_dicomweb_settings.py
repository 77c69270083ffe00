"""Clients of the DICOMweb services: tokens that nobody can guess, from files, shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.run.supervisor import child_environment
from node.settings import ConfigError, load_settings

TOKEN = "0123456789abcdef" * 2
CONFIG = '[dicomweb.clients.mr1]\nae_title = "MR1"\n'


def config(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('token = "short"', "a token has at least 32 characters; make one with `openssl rand -hex 32`"),
        (f'token = "{TOKEN}ä"', "printable ASCII"),
        ("", "this setting is required"),
        (f'token = "{TOKEN}"\n[dicomweb.clients.ct]\nae_title = "CT"\ntoken = "{TOKEN}"', "the same token"),
        (f'token = "{TOKEN}"\nread = true', "there is no such setting"),
    ],
)
def test_a_client_that_is_not_safe_is_refused(tmp_path: Path, more: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load_settings(config(tmp_path, CONFIG + more))
    assert TOKEN not in str(caught.value)


def test_a_token_is_shown_nowhere_and_reaches_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "dicomweb__clients__mr1__token").write_text(TOKEN + "\n")
    monkeypatch.setenv("CMBNODE_SECRETS_DIR", str(tmp_path / "secrets"))
    settings = load_settings(config(tmp_path, CONFIG))
    assert settings.dicomweb.clients["mr1"].token.get_secret_value() == TOKEN
    assert TOKEN not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CMBNODE_SECRETS_DIR")
    assert load_settings(None).dicomweb == settings.dicomweb

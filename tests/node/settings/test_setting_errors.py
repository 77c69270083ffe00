"""A mistake in the settings is one line: where it was set, what is wrong, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.settings import ConfigError, load_settings
from node.settings import setting_errors as module
from node.settings.secrets import SECRETS_DIR

PACS = '[destinations.pacs]\nae_title = "PACS"\nhost = "pacs"\nport = 104\n'


def mistake(folder: Path, text: str = "") -> str:
    (folder / "node.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(folder / "node.toml", data_dir=folder)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recever = 1", "node.toml: recever: there is no such setting; did you mean receiver?"),
        ("[receiver]\nprot = 104", "node.toml: receiver.prot: there is no such setting; did you mean receiver.port?"),
        ("ae_titel = 'X'", "node.toml: ae_titel: there is no such setting; did you mean ae_title?"),
        ("port = 104", "node.toml: port: there is no such setting; did you mean receiver.port or worklist.port?"),
        ("colour = 'red'", "node.toml: colour: there is no such setting; see docs/settings.md for every setting"),
        (
            PACS.replace("ae_title", "ae_titel"),
            "node.toml: destinations.pacs.ae_titel: there is no such setting; did you mean destinations.pacs.ae_title?",
        ),
        (
            PACS.replace("port = 104", ""),
            "node.toml: destinations.pacs.port: this setting is required; see docs/settings.md for every setting",
        ),
        (
            "[receiver]\npeers = ['10.0.0.0/99']",
            "node.toml: receiver.peers.0: Input is not a valid IPv4 network; see docs/settings.md for every setting",
        ),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, text: str, says: str) -> None:
    assert mistake(tmp_path, text) == says


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CMBNODE_FOO", "1", "CMBNODE_FOO: there is no such setting; unset it; see docs/settings.md for every setting"),
        (
            "CMBNODE_RECEIVER_PORT",
            "1",
            "CMBNODE_RECEIVER_PORT: there is no such setting; did you mean CMBNODE_RECEIVER__PORT?",
        ),
        (
            "CMBNODE_RECEIVER__PROT",
            "1",
            "CMBNODE_RECEIVER__PROT: there is no such setting; did you mean CMBNODE_RECEIVER__PORT?",
        ),
        (
            "CMBNODE_RECEIVER__PORT",
            "abc",
            "CMBNODE_RECEIVER__PORT: it must be a valid integer; see docs/settings.md for every setting",
        ),
        (
            "cmbnode_receiver__port",
            "abc",
            "cmbnode_receiver__port: it must be a valid integer; see docs/settings.md for every setting",
        ),
        (
            "CMBNODE_DESTINATIONS__PACS__PORT",
            "0",
            "CMBNODE_DESTINATIONS__PACS__PORT: it must be greater than or equal to 1; see docs/settings.md for every"
            " setting",
        ),
        (
            "CMBNODE_RECEIVER",
            '{"port": 70000}',
            "CMBNODE_RECEIVER: receiver.port: it must be less than or equal to 65535; see docs/settings.md for every"
            " setting",
        ),
        (
            "CMBNODE_RECEIVER",
            "{",
            "CMBNODE_RECEIVER: its value is not valid JSON; write one variable for each setting"
            " (CMBNODE_RECEIVER__NAME), or a JSON object",
        ),
        (
            "CMBNODE_RECEIVER__PEERS",
            "10.1.2.0/24",
            'CMBNODE_RECEIVER__PEERS: its value is not valid JSON; write a list as ["10.1.2.0/24", "10.1.3.0/24"]',
        ),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert mistake(tmp_path, PACS) == says


def test_a_variable_beside_the_mistake_is_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMBNODE_RECEIVER", '{"max_associations": 5}')
    monkeypatch.setenv("CMBNODE_SETTLING__QUIET_S", "5")
    assert mistake(tmp_path, "[receiver]\nport = 99999").startswith("node.toml: receiver.port: ")


def test_a_mistake_in_a_secret_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secrets" / "destinations__ehr__token"
    secret.parent.mkdir()
    secret.write_text("two\nlines")
    monkeypatch.setenv(SECRETS_DIR, str(secret.parent))
    text = '[destinations.ehr]\nkind = "fhir"\nurl = "https://ehr/fhir"\n'
    assert mistake(tmp_path, text).startswith("secrets/destinations__ehr__token: destinations.ehr.token: a token ")


@pytest.mark.parametrize("as_variable", [False, True])
def test_a_renamed_setting_is_refused_with_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_variable: bool
) -> None:
    monkeypatch.setitem(module.RENAMED, "receiver.networks", "receiver.peers")
    if as_variable:
        monkeypatch.setenv("CMBNODE_RECEIVER__NETWORKS", "[]")
        assert mistake(tmp_path) == (
            "CMBNODE_RECEIVER__NETWORKS: this setting is now called CMBNODE_RECEIVER__PEERS; write the new name"
        )
    else:
        assert mistake(tmp_path, "[receiver]\nnetworks = []") == (
            "node.toml: receiver.networks: this setting is now called receiver.peers; write the new name"
        )

"""`cmbnode init` writes a configuration that the node takes, from options or from answers, and overwrites nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli import main
from node.settings import load_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("CMBNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115 - closed with the process


def test_options_become_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    options = ["--data", "/srv/cmb", "--ae-title", "CMB", "--pacs", "PACS@10.1.2.3:104", "--time-zone", "Europe/Berlin"]
    assert main(["init", str(file), *options]) == 0
    assert capsys.readouterr().out == f"{file} is written. Next: cmbnode doctor --config {file}\n"
    settings = load_settings(file)
    assert (str(settings.data_dir), settings.ae_title, settings.time_zone) == ("/srv/cmb", "CMB", "Europe/Berlin")
    assert [str(one) for one in settings.receiver.peers] == ["10.1.2.3/32"]
    assert settings.receiver.calling_ae_titles == ("PACS",)
    assert {name: way.address for name, way in settings.destinations.items()} == {"pacs": "PACS@10.1.2.3:104"}


def test_without_answers_the_defaults_are_written_and_every_example_in_it_is_valid(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "node.toml")]) == 0
    settings = load_settings(tmp_path / "node.toml")
    assert settings.destinations == {}
    assert settings.receiver.listen_host == "127.0.0.1"
    text = (tmp_path / "node.toml").read_text()
    examples = [
        line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# [", "# peers", "# time_z"))
    ]
    values = [line.removeprefix("# ") if " = " in line and '"' in line else line for line in text.splitlines()]
    tables = [line.removeprefix("# ") if line.startswith("# [") else line for line in values]
    assert len(examples) == 6
    (tmp_path / "examples.toml").write_text("\n".join(tables).replace("# port", "port"))
    settings = load_settings(tmp_path / "examples.toml")
    assert (settings.time_zone, settings.worklist.url) == ("Europe/Berlin", "https://cmb.hospital.example")
    assert list(settings.destinations) == ["pacs"]
    assert settings.priors.dicom is not None


def test_an_existing_file_stays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("# mine")
    assert main(["init", str(tmp_path / "node.toml")]) == 2
    assert "this file exists; nothing was written" in capsys.readouterr().err
    assert (tmp_path / "node.toml").read_text() == "# mine"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--pacs", "10.1.2.3", "'10.1.2.3': not a DICOM node; write AET@HOST:PORT, as in ORTHANC@127.0.0.1:4242"),
        ("--networks", "10.1.2.0/99", "receiver.peers.0: Input is not a valid IPv4 network; nothing was written; try"),
        ("--ae-title", "FAR_TOO_LONG_A_TITLE", "ae_title: an AE title has 1 to 16 printable ASCII characters"),
        ("--time-zone", "Berlin", "time_zone: no such time zone; name one as Europe/Berlin; nothing was written"),
    ],
)
def test_a_wrong_answer_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, says: str
) -> None:
    assert main(["init", str(tmp_path / "node.toml"), option, value]) == 2
    assert capsys.readouterr().err.startswith(f"cmbnode: {says}")
    assert not (tmp_path / "node.toml").exists()


def test_it_asks_five_questions_on_a_terminal(tmp_path: Path) -> None:
    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli", "init", "node.toml"],
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
    )
    os.write(main_end, b"/srv/cmb\n\nPACS@pacs.example:104\n10.1.2.0/24, 10.1.3.0/24\nEurope/Berlin\n")
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    asked = os.read(main_end, 65536).decode()
    os.close(main_end)
    assert process.returncode == 0, asked
    assert out.strip() == "node.toml is written. Next: cmbnode doctor --config node.toml"
    settings = load_settings(tmp_path / "node.toml")
    assert (str(settings.data_dir), settings.ae_title, settings.time_zone) == ("/srv/cmb", "CMBNODE", "Europe/Berlin")
    assert [str(one) for one in settings.receiver.peers] == ["10.1.2.0/24", "10.1.3.0/24"]

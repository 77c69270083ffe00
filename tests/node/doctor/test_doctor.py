"""`cmbnode doctor` finds what is wrong with a node and the systems around it, and says what to do."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import text

from node.cli import main
from node.doctor import machine
from node.ledger import Ledger
from node.processes.parts import RECEIVER, ClockReport, note_not_running, part_file, write_clock
from node.settings import setting_errors
from pipeline.profile import FOLDER as PROFILES
from tests.certificates import DAY, Authority
from tests.own_redis import own_redis


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("CMBNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CMBNODE_ARCHIVE__FREE_DISK_MB", "1")


@contextmanager
def answering_echo() -> Iterator[int]:
    """A DICOM node that answers C-ECHO; gives its port."""
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield server.server_address[1]
    server.shutdown()


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and each check by its subject."""
    status = main(["doctor", "--json", *map(str, words)])
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == ("wrong" if status else "ok")
    return status, {one["subject"]: one for one in document["checks"]}


def test_a_new_machine_has_nothing_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, checks = ask(capsys, "--data", tmp_path / "new")
    assert status == 0
    assert [checks[name]["verdict"] for name in ("settings", "disk", "rules", "profile default")] == ["ok"] * 4
    assert checks["data folder"]["do"] == "`cmbnode up` creates it"
    assert checks["database"]["what"] == "there is none yet"
    assert not (tmp_path / "new").exists()


def test_the_plain_answer_names_what_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CMBNODE_ARCHIVE__FREE_DISK_MB", str(10**9))
    assert main(["doctor", "--data", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("checks failed: disk")
    (at,) = [number for number, line in enumerate(lines) if line.startswith("wrong  disk: ")]
    assert lines[at + 1] == "       → free some space, shorten archive.keep_days, or lower archive.free_disk_mb"


def test_a_wrong_or_renamed_setting_is_the_first_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(setting_errors.RENAMED, "receiver.networks", "receiver.peers")
    (tmp_path / "node.toml").write_text("[receiver]\nnetworks = []\n")
    status, checks = ask(capsys, "--config", tmp_path / "node.toml")
    assert status == 1
    assert checks["settings"]["what"].endswith("receiver.networks: this setting is now called receiver.peers")


def test_a_port_in_use_is_wrong_unless_the_node_itself_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("CMBNODE_RECEIVER__PORT", str(taken.getsockname()[1]))
        status, checks = ask(capsys, "--data", tmp_path)
        assert (status, checks["port of the receiver"]["verdict"]) == (1, "wrong")
        life = part_file(tmp_path, RECEIVER, os.getpid())
        life.parent.mkdir(parents=True)
        life.touch()
        tmp_path.chmod(0o700)
        (tmp_path / "run").chmod(0o700)
        status, checks = ask(capsys, "--data", tmp_path)
    assert status == 0
    assert checks["port of the receiver"]["what"].endswith("the running node listens")
    assert checks["parts"]["what"] == "running: receiver"


def test_a_part_that_does_not_work_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    life = part_file(tmp_path, RECEIVER, os.getpid())
    life.parent.mkdir(parents=True)
    life.touch()
    note_not_running(tmp_path, {"worklist": "it ended with status 1"})
    status, checks = ask(capsys, "--data", tmp_path)
    assert status == 1
    assert checks["part worklist"]["what"] == "it ended with status 1"


def test_files_that_others_can_read_and_a_clock_that_jumped_are_notes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "run").mkdir(mode=0o700)
    write_clock(tmp_path, ClockReport(0.0, 7200.0))
    status, checks = ask(capsys, "--data", tmp_path)
    assert status == 0
    assert checks["data folder"]["what"] == f"{tmp_path} can be read by other users"
    assert checks["clock"]["what"] == "it jumped; no expired data is deleted for another 2.0 hours"


def test_redis_is_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis") as redis:
        monkeypatch.setenv("CMBNODE_REDIS_URL", redis.url)
        status, checks = ask(capsys, "--data", tmp_path)
        assert (status, checks["Redis"]["what"]) == (0, "answers")
    status, checks = ask(capsys, "--data", tmp_path)
    assert (status, checks["Redis"]["do"]) == (1, "start it, or correct redis_url")


def test_the_schema_of_the_database_is_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    newest = ledger.schema().newest
    assert ask(capsys, "--data", tmp_path)[1]["database"]["what"] == f"sqlite, schema {newest}"
    for schema, verdict, words in (("0001", "note", "its schema is 0001"), ("9999", "wrong", "has schema 9999")):
        with ledger.engine.begin() as connection:
            connection.execute(text("update alembic_version set version_num = :it"), {"it": schema})
        database = ask(capsys, "--data", tmp_path)[1]["database"]
        assert database["verdict"] == verdict
        assert words in database["what"]
    ledger.close()


def test_a_database_that_is_away_is_wrong_and_its_password_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CMBNODE_DATABASE_URL", "postgresql://cmbnode:s3cret@127.0.0.1:1/cmbnode")
    status, checks = ask(capsys, "--data", tmp_path)
    assert status == 1
    assert checks["database"]["what"].startswith("postgresql: it does not answer (")
    assert "s3cret" not in str(checks)


def test_every_destination_and_every_source_of_studies_are_called(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with answering_echo() as port:
        (tmp_path / "node.toml").write_text(
            f"""
            data_dir = "{tmp_path / "data"}"
            [receiver]
            allow_anyone = true
            [destinations.pacs]
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {port}
            [destinations.ris]
            kind = "hl7"
            host = "127.0.0.1"
            port = 1
            [destinations.vna]
            kind = "stow"
            url = "http://vna.invalid/dicom-web"
            [priors.dicom]
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {port}
            [pull.archive.dicom]
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {port}
            retrieve = "c-get"
            [pull.cloud.dicomweb]
            url = "http://cloud.invalid/dicom-web"
            """
        )
        status, checks = ask(capsys, "--config", tmp_path / "node.toml")
    assert status == 1
    assert checks["destination pacs"]["what"].endswith("answers C-ECHO")
    assert checks["source of priors"]["verdict"] == "ok"
    assert checks["source of new studies archive"]["verdict"] == "ok"
    assert checks["source of new studies cloud"]["verdict"] == "wrong"
    assert checks["destination ris"]["what"].startswith("mllp://127.0.0.1:1 cannot be reached")
    assert checks["destination vna"]["verdict"] == "wrong"


def test_weights_that_are_not_those_of_the_profile_are_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = PROFILES / "default.toml"
    (tmp_path / "own.toml").write_text(shipped.read_text())
    for name in tomllib.loads(shipped.read_text())["candidates"]["weights"]["file"], "default-context.safetensors":
        (tmp_path / name).write_bytes(b"of another training")
    (tmp_path / "routing.toml").write_text(
        'schema = "cmb-routing/1"\n[[rule]]\nname = "SWI"\nrole = "swi"\naction = "analyse"\n'
        f'profile = "{tmp_path / "own.toml"}"\n[[rule]]\nname = "others"\naction = "ignore"\n'
    )
    monkeypatch.setenv("CMBNODE_ROUTING_FILE", str(tmp_path / "routing.toml"))
    status, checks = ask(capsys, "--data", tmp_path / "data")
    assert status == 1
    assert "are not those of the profile" in checks["profile default"]["what"]
    assert checks["profile default"]["do"] == "install the file that belongs to the profile"


@pytest.mark.parametrize(("device", "verdict"), [("auto", "note"), ("cuda", "wrong"), ("cpu", "ok")])
def test_a_driver_that_pytorch_cannot_use_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, verdict: str
) -> None:
    (tmp_path / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
    monkeypatch.setattr(machine, "NVIDIA_DRIVER", tmp_path / "driver")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CMBNODE_DEVICE", device)
    gpu = ask(capsys, "--data", tmp_path)[1]["GPU"]
    assert gpu["verdict"] == verdict
    assert device == "cpu" or "550.54.15" in gpu["what"]


def test_a_check_that_breaks_down_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("shutil.disk_usage", broken)
    status, checks = ask(capsys, "--data", tmp_path)
    assert status == 1
    assert checks["disk"]["what"] == "it could not be checked (RuntimeError: no such thing)"
    assert "database" in checks


@pytest.mark.parametrize(("days", "verdict"), [(60, "ok"), (10, "note"), (-1, "wrong")])
def test_a_certificate_that_expires_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, days: int, verdict: str
) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.issue("cmbnode", valid=days * DAY)
    (tmp_path / "node.toml").write_text(
        f"""
        data_dir = "{tmp_path / "data"}"
        [receiver.tls]
        port = 0
        certificate = "{own.certificate}"
        certificate_key = "{own.key}"
        ca_file = "{authority.ca_file}"
        """
    )
    status, checks = ask(capsys, "--config", tmp_path / "node.toml")
    assert checks["certificate receiver.tls.certificate"]["verdict"] == verdict
    assert checks["port of the receiver.tls"]["verdict"] == "note"
    assert status == (verdict == "wrong")

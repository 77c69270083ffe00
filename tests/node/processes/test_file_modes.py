"""Only the node's own user can read what the node writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.archive import Archive
from node.cli import main
from node.ledger import Ledger
from node.processes.file_modes import PermissionsError, secure_data_folder
from node.processes.process import NodeProcess
from node.settings import Settings


def open_to_others(folder: Path) -> list[str]:
    """What of a folder, itself included, anyone but its owner has permissions for."""
    return sorted(path.name for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077)


@pytest.fixture
def lax() -> Iterator[None]:
    """The usual umask, under which everyone can read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def readable(lax: None, tmp_path: Path) -> Path:
    """A data folder as an earlier version left it: everyone can read it."""
    data = tmp_path / "data"
    Archive(data).store("1.2.3", "1.2", "1.1", b"an image")
    Ledger(Settings(data_dir=data).ledger_url).upgrade()
    (data / "notes.txt").write_text("not the node's")
    return data


@pytest.mark.usefixtures("lax")
def test_every_command_writes_for_its_user_only(tmp_path: Path) -> None:
    Ledger(Settings(data_dir=tmp_path / "data").ledger_url).upgrade()
    command = [sys.executable, "-m", "node.cli", "sweep", "--data", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "no Redis is named" in done.stderr
    assert (tmp_path / "data" / "studies").is_dir()
    assert open_to_others(tmp_path / "data") == []


@pytest.mark.usefixtures("lax")
def test_a_part_and_what_it_starts_write_for_their_user_only(tmp_path: Path) -> None:
    script = "import subprocess; subprocess.run(['mkdir', 'made'])"
    part = NodeProcess("part", [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {script}"], {}, bool)
    part.start()
    assert part.process is not None
    assert part.process.wait(20) == 0
    assert open_to_others(tmp_path / "made") == []


def test_what_others_could_read_is_closed_to_them(readable: Path) -> None:
    assert "ledger.sqlite3" in open_to_others(readable)
    assert secure_data_folder(readable) > 0
    assert open_to_others(readable) == ["notes.txt"]
    assert (readable.stat().st_mode & 0o777, (readable / "ledger.sqlite3").stat().st_mode & 0o777) == (0o700, 0o600)
    assert secure_data_folder(readable, deep=True) == 0


def test_a_file_deep_in_a_closed_folder_is_found_when_every_file_is_checked(readable: Path) -> None:
    secure_data_folder(readable)
    (image,) = readable.rglob("*.dcm")
    image.chmod(0o644)
    assert secure_data_folder(readable) == 0
    assert secure_data_folder(readable, deep=True) == 1
    assert open_to_others(readable) == ["notes.txt"]


def test_data_of_another_user_is_refused(readable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = readable.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(
        PermissionsError, match=rf"belongs to another user \(uid {owner}; the node runs as {owner + 1}\)"
    ):
        secure_data_folder(readable)


def test_permissions_that_cannot_be_changed_are_refused(readable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(PermissionsError, match=r"cannot be changed .*chmod -R"):
        secure_data_folder(readable)


def test_a_node_does_not_start_on_data_of_another_user(
    readable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = readable.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert main(["sweep", "--data", str(readable)]) == 2
    assert "belongs to another user" in capsys.readouterr().err


def test_starting_says_in_one_line_what_was_repaired(readable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--data", str(readable)]) == 2  # no Redis is named
    said = [line for line in capsys.readouterr().err.splitlines() if "other users' permissions" in line]
    assert len(said) == 1
    assert open_to_others(readable) == ["notes.txt"]

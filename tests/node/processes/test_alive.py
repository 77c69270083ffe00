"""A process that does its work touches its alive file; a health check judges the file's age."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.processes.alive import ALIVE_FILE, SILENCE_LIMIT_S, beat


def _check(path: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != ALIVE_FILE}
    named = {} if path is None else {ALIVE_FILE: str(path)}
    command = [sys.executable, "-m", "node.processes.alive"]
    return subprocess.run(command, env=environment | named, capture_output=True, text=True, check=False)


def test_a_process_that_beats_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alive" / "worker"
    monkeypatch.setenv(ALIVE_FILE, str(path))
    beat()
    assert _check(path).returncode == 0


def test_the_folder_of_the_file_is_for_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALIVE_FILE, str(tmp_path / "alive" / "worker"))
    beat()
    assert (tmp_path / "alive").stat().st_mode & 0o077 == 0


def test_each_beat_makes_the_file_young_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "worker"
    monkeypatch.setenv(ALIVE_FILE, str(path))
    beat()
    os.utime(path, (0, 0))
    beat()
    assert time.time() - path.stat().st_mtime < SILENCE_LIMIT_S


def test_a_process_that_falls_silent_is_not_healthy(tmp_path: Path) -> None:
    path = tmp_path / "worker"
    path.touch()
    long_ago = time.time() - SILENCE_LIMIT_S - 1
    os.utime(path, (long_ago, long_ago))
    done = _check(path)
    assert done.returncode == 1
    assert "61 s ago" in done.stderr or "62 s ago" in done.stderr


def test_a_process_that_has_not_begun_is_not_healthy(tmp_path: Path) -> None:
    assert _check(tmp_path / "worker").returncode == 1


def test_without_a_name_nothing_is_touched_and_nothing_is_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALIVE_FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    beat()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert _check(None).returncode == 1


def test_the_check_is_cheap_enough_to_run_every_half_minute() -> None:
    heavy = {"torch", "numpy", "psutil", "sqlalchemy", "typer", "pydantic"}
    code = "import sys, node.processes.alive; print(*{module.split('.')[0] for module in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())

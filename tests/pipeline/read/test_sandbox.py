"""What a confined process can still do: compute, and speak through the pipes that it has."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.read import decoding
from pipeline.read.decoding import Decoder
from tests.dicom_factory import classic, write

ATTEMPTS = """
import json, os, signal, socket, subprocess, sys, threading
from pipeline.read import sandbox
if sys.argv[1] == "limits alone":
    sandbox._CALLS.clear()

def attempt(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return "done"

confined = sandbox.confine(10)
did = {
    "read": attempt(lambda: open("/etc/hostname")),
    "write": attempt(lambda: open(sys.argv[2], "w")),
    "socket": attempt(lambda: socket.socket()),
    "run": attempt(lambda: subprocess.run(["true"])),
    "fork": attempt(os.fork) if confined else "not tried",
    "kill": attempt(lambda: os.kill(os.getppid(), 0)),
    "computed": sum(range(1000)),
}
print(json.dumps([confined, did]))
"""


def confined_attempts(tmp_path: Path, how: str) -> tuple[bool, dict[str, object]]:
    command = [sys.executable, "-c", ATTEMPTS, how, str(tmp_path / "written")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    confined, did = json.loads(done.stdout)
    assert not (tmp_path / "written").exists()
    return confined, did


@pytest.mark.parametrize("how", ["with the filter", "limits alone"])
def test_a_confined_process_opens_no_file_and_no_connection_and_starts_nothing(tmp_path: Path, how: str) -> None:
    _, did = confined_attempts(tmp_path, how)
    assert did["computed"] == 499500
    for what in ("read", "write", "socket", "run"):
        assert did[what] in ("OSError", "PermissionError"), what


def test_the_filter_also_stops_signals_and_forks_even_of_root(tmp_path: Path) -> None:
    confined, did = confined_attempts(tmp_path, "with the filter")
    assert confined == (platform.machine() in ("x86_64", "aarch64"))
    if confined:
        assert (did["fork"], did["kill"]) == ("PermissionError", "PermissionError")
    assert not confined_attempts(tmp_path, "limits alone")[0]


def test_a_decoder_knows_nothing_of_the_node_s_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMBNODE_DATABASE_URL", "postgresql://cmb:secret@db/cmb")
    monkeypatch.setenv("ANY_OTHER_TOKEN", "secret")
    decoder = Decoder()
    try:
        environment = Path(f"/proc/{decoder._process.pid}/environ").read_bytes()
    finally:
        decoder.close()
    assert b"secret" not in environment


def test_the_log_says_once_that_only_the_weaker_protection_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weaker = "import runpy; from pipeline.read import sandbox; sandbox._CALLS.clear(); "
    real = subprocess.Popen
    monkeypatch.setattr(
        decoding.subprocess,
        "Popen",
        lambda command, **options: real(
            [sys.executable, "-c", weaker + f"runpy.run_module({command[-1]!r}, run_name='__main__')"], **options
        ),
    )
    decoding._warn_once.cache_clear()
    (path,) = write(classic(np.ones((1, 16, 16), np.uint16)), tmp_path, "rle")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            decoder = Decoder()
            decoder.decode(path, [0])
            decoder.close()
    decoding._warn_once.cache_clear()
    assert len([record for record in caplog.records if "system call filter" in record.message]) == 1

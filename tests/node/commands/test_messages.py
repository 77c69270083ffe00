"""What a person reads when something is wrong with the machine: one line that says what, where and what to do."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from node.cli import app, main
from node.run.ports import Obstacle, find_obstacle
from training.cli import app as training

ROOT = Path(__file__).parents[3]


def line_of(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and the last line of standard error."""
    status = main([str(word) for word in words])
    return status, capsys.readouterr().err.splitlines()[-1]


def test_a_host_name_that_cannot_be_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    status, line = line_of(capsys, "echo", "PACS@pacs.invalid:104")
    assert status == 1
    assert line.startswith("cmbnode: PACS@pacs.invalid:104: the host name pacs.invalid cannot be resolved (")
    assert line.endswith("; check its spelling and the DNS")


def test_a_data_folder_that_cannot_be_created(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    status, line = line_of(capsys, "up", "--data", tmp_path / "file" / "data")
    assert status == 2
    assert line == (
        f"cmbnode: {tmp_path}/file/data: this folder cannot be created (Not a directory); create it for the user that "
        f"the node runs as (uid {os.geteuid()}), or name another folder with --data"
    )


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, line = line_of(capsys, "jobs", "--config", tmp_path)
    assert (status, line.startswith(f"cmbnode: {tmp_path}: ")) == (2, True)


@pytest.mark.parametrize("part", ["receiver", "worklist"])
def test_a_port_in_use_is_named_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str
) -> None:
    monkeypatch.setenv("CMBNODE_RECEIVER__PORT", "0")
    monkeypatch.setenv("CMBNODE_WORKLIST__PORT", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(f"CMBNODE_{part.upper()}__PORT", str(port))
        status = main(["up", "--data", str(tmp_path)])
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cmbnode: {part}: 127.0.0.1: port {port} is in use by ")
    assert line.endswith(f"; stop that program, or set {part}.host and {part}.port")
    assert not (tmp_path / "ledger.sqlite3").exists()


def test_a_port_just_closed_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            accepted.close()  # this side closes first, and its port lingers in TIME_WAIT
            client.recv(1)
    assert find_obstacle("127.0.0.1", port) is None
    assert find_obstacle("192.0.2.1", port) == Obstacle("192.0.2.1 is no address of this machine")


@pytest.mark.parametrize("program", [app, training], ids=["cmbnode", "cmbtrain"])
def test_no_help_shows_a_type_of_the_program(program: object) -> None:
    group = get_command(program)  # type: ignore[arg-type]
    shown = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {"": command})
        for word, one in inner.items():
            context = one.make_context(f"{name} {word}", [], resilient_parsing=True)
            shown.append(one.get_help(context))
    text = "\n".join(shown)
    assert "Options:" in text
    assert re.findall(r"<[a-z%].*?>", text) == []


def test_what_send_counts_is_a_bar_on_a_terminal(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom node.commands.output import counting\n"
        "with counting('send to PACS@h:104', 20) as advance:\n    [advance() for _ in range(20)]\n"
    )
    main_end, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], stderr=terminal, env=environment, check=True, cwd=tmp_path)
    os.close(terminal)
    shown = os.read(main_end, 65536).decode()
    os.close(main_end)
    assert "━" in shown
    assert "10/20" not in shown.splitlines()

"""The receiver as a process of its own: strangers do not make it grow, and it can be stopped or killed at any time."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.node.receiving import Peer, associated, echoes, eventually, p_data, store_command
from tests.ports import free_port

from .test_receiver_attacks import MEGABYTE, an_image

pytestmark = pytest.mark.slow


@contextmanager
def receiver_process(folder: Path, **environment: str) -> Iterator[tuple[psutil.Process, int, subprocess.Popen[str]]]:
    """The receiver as it runs in a hospital: a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from node.settings import Settings; from node.receive.receiver import run_receiver;"
         "run_receiver(Settings())"],
        env={**os.environ, "CMBNODE_DATA_DIR": str(folder), "CMBNODE_RECEIVER__PORT": str(port),
             "CMBNODE_RECEIVER__HOST": "127.0.0.1", "CMBNODE_ARCHIVE__FREE_DISK_MB": "0", **environment},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert eventually(lambda: _is_listening(port), 30)
        yield psutil.Process(process.pid), port, process
    finally:
        process.kill()
        process.communicate()


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_four_gigabytes_declared_by_many_strangers_leave_the_memory_flat(tmp_path: Path) -> None:
    with receiver_process(tmp_path) as (process, port, _):
        assert echoes(port)
        before = process.memory_info().rss

        def declare(peer: Peer) -> None:
            peer.send(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
            for _ in range(100):
                if not peer.send_as_far_as_it_goes(bytes(100_000)):
                    return

        def stream(peer: Peer) -> None:
            peer.associate()
            peer.send(p_data(3, 3, store_command(an_image())))
            for _ in range(400):
                if not peer.send_as_far_as_it_goes(p_data(3, 0, bytes(200_000))):
                    return

        peak = before
        for attack in (declare, declare, declare, declare, stream):
            with Peer(port) as peer:
                attack(peer)
                peak = max(peak, process.memory_info().rss)
        assert peak - before < 30 * MEGABYTE
        assert echoes(port)


def test_on_sigterm_the_receiver_returns_and_says_so_without_a_patient(tmp_path: Path) -> None:
    with receiver_process(tmp_path, CMBNODE_LOG_FORMAT="json") as (_, port, process):
        with associated(port) as association:
            assert association.send_c_store(an_image()).Status == 0
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "receiver stopped" in log
    assert "MODALITY" in log
    assert "Test^Brain" not in log
    assert "Brain" not in log


def test_a_receiver_killed_while_an_object_arrives_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    with receiver_process(tmp_path) as (process, port, _), Peer(port) as peer:
        assert peer.associate() == 2
        peer.send(p_data(3, 3, store_command(an_image())) + p_data(3, 0, bytes(10_000)))
        assert eventually(lambda: len(list(incoming.iterdir())) == 1)
        process.kill()
        process.wait(10)
    assert len(list(incoming.iterdir())) == 1
    with receiver_process(tmp_path) as (_, port, _):
        assert list(incoming.iterdir()) == []
        with associated(port) as association:
            assert association.send_c_store(an_image()).Status == 0

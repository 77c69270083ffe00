"""What strangers may send: refused or dropped, nothing grows, and the next echo is answered."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from structlog.testing import capture_logs

from node.commitment import STORAGE_COMMITMENT
from tests.node.receiving import (
    Node,
    Peer,
    action_command,
    associate_request,
    echo_command,
    echoes,
    encoded,
    eventually,
    p_data,
    pdu,
    running_node,
    slices,
    status_of,
    store_command,
)

pytestmark = pytest.mark.slow

MEGABYTE = 1_000_000
ECHO, MR = 1, 3  # presentation context ids of `associate_request`


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node"), max_instance_bytes=2**20, idle_timeout_s=5) as node:
        yield node


@pytest.fixture(autouse=True)
def still_serving(node: Node) -> Iterator[None]:
    """After whatever a test does, the node answers, and holds no connection, file or half-written object."""
    outside = set(node.archive.root.parent.rglob("*")) if node.archive.root.parent.exists() else set()
    yield
    assert echoes(node.port)
    assert eventually(lambda: node.receiver.connections == 0)
    assert node.files("incoming") == []
    added = set(node.archive.root.parent.rglob("*")) - outside
    assert all(path.is_relative_to(node.archive.root) or path.name.startswith("ledger") for path in added)


def an_image() -> Dataset:
    return slices(1)[0]


@contextmanager
def attacker(node: Node) -> Iterator[Peer]:
    """A raw peer with an accepted association."""
    with Peer(node.port) as peer:
        assert peer.associate() == 2
        yield peer


def store(peer: Peer, command: bytes, data: bytes) -> int | None:
    peer.send(p_data(MR, 3, command) + p_data(MR, 2, data))
    return status_of(peer.receive())


@pytest.mark.parametrize(
    "uid", ["../../../../tmp/pwned", "..", "/etc/passwd", "1.2.3/../../x", "1.2\\..\\x", "1.2;rm -rf"]
)
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_uid_that_is_a_path_leads_nowhere(node: Node, keyword: str, uid: str) -> None:
    image = an_image()
    setattr(image, keyword, uid)
    with attacker(node) as peer:
        named = uid if keyword == "SOPInstanceUID" and "\\" not in uid else "1.2"
        assert store(peer, store_command(an_image(), AffectedSOPInstanceUID=named), encoded(image)) == 0xC000
    assert node.files("studies") == []
    assert all(path.name.replace(path.suffix, "").isalnum() for path in node.files("quarantine"))
    assert not Path("/tmp/pwned").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_the_request_names_must_be_what_it_brings(node: Node) -> None:
    image = an_image()
    with attacker(node) as peer:
        assert store(peer, store_command(image, AffectedSOPInstanceUID="1.2.3"), encoded(image)) == 0xA900
        assert store(peer, store_command(image, AffectedSOPInstanceUID="../../x"), encoded(image)) == 0xA900
        other = store_command(image, AffectedSOPClassUID="1.2.840.10008.5.1.4.1.1.7")
        assert store(peer, other, encoded(image)) == 0xA900
    assert node.files("studies") == []
    assert {aside.why for aside in node.ledger.quarantined(3)} == {"data set, request and context do not match"}


def test_a_data_set_that_was_cut_off_is_not_understood(node: Node) -> None:
    image = an_image()
    with attacker(node) as peer:
        assert store(peer, store_command(image), encoded(image)[:-100]) == 0xC000
    assert "truncated" in node.ledger.quarantined(1)[0].why
    assert node.files("studies") == []


def test_a_request_without_a_data_set_is_not_understood(node: Node) -> None:
    with attacker(node) as peer:
        peer.send(p_data(MR, 3, store_command(an_image(), CommandDataSetType=0x0101)))
        assert status_of(peer.receive()) == 0xC000


def test_a_deflate_bomb_is_kept_aside(tmp_path: Path) -> None:
    image, packer = an_image(), zlib.compressobj(wbits=-zlib.MAX_WBITS)
    image.PixelData = bytes(20 * MEGABYTE)
    bomb = packer.compress(encoded(image)) + packer.flush()
    with running_node(tmp_path, max_instance_bytes=2**20) as node, Peer(node.port) as peer:
        assert peer.associate(syntax=DeflatedExplicitVRLittleEndian) == 2
        assert len(bomb) < 100_000
        assert store(peer, store_command(image), bomb) == 0xC000
        assert "inflates" in node.ledger.quarantined()[0].why


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x10000000, 262_144 + 1025])
@pytest.mark.parametrize("kind", [1, 4])
def test_a_pdu_that_declares_too_much_ends_the_association_before_it_is_read(
    node: Node, kind: int, length: int
) -> None:
    with Peer(node.port) if kind == 1 else attacker(node) as peer:
        peer.send(struct.pack(">BBL", kind, 0, length))
        assert peer.receive() in {(7, bytes(4)), (7, bytes([0, 0, 2, 0]))}
        assert peer.receive() is None


def test_a_data_set_that_never_ends_is_cut_off_and_removed(node: Node) -> None:
    with attacker(node) as peer:
        peer.send(p_data(MR, 3, store_command(an_image())))
        sent = 0
        while sent < 64 * MEGABYTE and peer.send_as_far_as_it_goes(p_data(MR, 0, bytes(60_000))):
            sent += 60_000
        assert sent < 32 * MEGABYTE  # what socket buffers hold and the node drains while it says goodbye
    assert eventually(lambda: node.files("incoming") == [])


def test_a_command_that_never_ends_is_cut_off(node: Node) -> None:
    with attacker(node) as peer:
        for _ in range(40):
            peer.send_as_far_as_it_goes(p_data(ECHO, 1, bytes(1000)))
        assert peer.is_cut_off()


def test_a_pdu_that_never_comes_to_its_end_is_dropped(tmp_path: Path) -> None:
    with running_node(tmp_path, idle_timeout_s=1.0) as node:
        with Peer(node.port) as stranger, Peer(node.port) as half, attacker(node) as friend:
            half.send(associate_request()[:50])
            friend.send(p_data(MR, 3, store_command(an_image()))[:-1])
            for peer in (stranger, half, friend):
                assert peer.is_cut_off()
        assert eventually(lambda: node.receiver.connections == 0)


def test_a_slow_trickle_does_not_buy_time(tmp_path: Path) -> None:
    with running_node(tmp_path, idle_timeout_s=1.0) as node, Peer(node.port) as peer:
        started = time.monotonic()
        for byte in associate_request()[:100]:
            if not peer.send_as_far_as_it_goes(bytes([byte])):
                break
            time.sleep(0.05)
        assert peer.is_cut_off()
        assert time.monotonic() - started < 4


def test_half_open_connections_do_not_keep_others_out(node: Node) -> None:
    idle = [socket.create_connection(("127.0.0.1", node.port), timeout=5) for _ in range(60)]
    try:
        assert eventually(lambda: node.receiver.connections <= 33)
        refused = [connection for connection in idle if _is_closed(connection)]
        assert len(refused) >= 60 - 32
    finally:
        for connection in idle:
            connection.close()
    assert eventually(lambda: echoes(node.port))


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_connecting_and_leaving_uses_nothing_up(node: Node) -> None:
    threads = threading.active_count()
    for _ in range(200):
        socket.create_connection(("127.0.0.1", node.port), timeout=5).close()
    assert eventually(lambda: threading.active_count() <= threads + 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS client hello
        bytes(10_000),
        b"\xff" * 10_000,
        pdu(1, bytes(200)),
        pdu(1, b"\x00\x01" + b"\xff" * 4000),
        pdu(4, bytes(10)),
        pdu(5, bytes(4)),
        pdu(7, bytes(4)),
        p_data(1, 3, b"no association"),
    ],
)
def test_garbage_is_dropped(node: Node, garbage: bytes) -> None:
    with Peer(node.port) as peer:
        peer.send_as_far_as_it_goes(garbage)
        assert peer.is_cut_off()


@pytest.mark.parametrize(
    "sent",
    [
        p_data(ECHO, 0, b"a data set without a command"),
        p_data(99, 3, echo_command()),
        p_data(ECHO, 3, b""),
        p_data(ECHO, 3, b"\xff" * 100),
        p_data(MR, 3, store_command(an_image())) + p_data(ECHO, 2, b"x"),
        p_data(MR, 3, store_command(an_image())) + p_data(MR, 3, echo_command()),
        p_data(MR, 3, store_command(an_image(), AffectedSOPInstanceUID="1" * 65)),
        p_data(MR, 3, store_command(an_image(), CommandField=0x0020)),  # C-FIND
        p_data(MR, 3, store_command(an_image(), CommandField=0x0100)),  # N-EVENT-REPORT of another service
        p_data(MR, 3, action_command(sop_class=an_image().SOPClassUID)),
        p_data(MR, 3, action_command()) + p_data(MR, 3, echo_command()),
        p_data(MR, 3, store_command(an_image(), CommandField=0x8001)),  # an answer to nothing
        pdu(4, struct.pack(">LBB", 0, 1, 3)),
        pdu(4, struct.pack(">LBB", 0xFFFFFFFF, 1, 3)),
        pdu(4, b"\0\0"),
        pdu(4, (struct.pack(">LBB", len(echo_command()) + 2, 1, 3) + echo_command()) * 2),
        associate_request(),
        pdu(2, bytes(80)),
        pdu(6, bytes(4)),
        pdu(5, bytes(1025)),
        pdu(8, bytes(4)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_breaking_the_rules_ends_the_association(node: Node, sent: bytes) -> None:
    with attacker(node) as peer:
        peer.send(sent)
        answer = peer.receive()
        assert answer is None or answer[0] == 7
    assert node.files("studies") == []


NESTED = struct.pack("<HH2sHL", 0x0008, 0x1199, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.mark.parametrize(
    "information", [b"", b"\0" * 999, os.urandom(5000), NESTED * 20_000, NESTED[:12] + b"\xff" * 99]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_odd_request_for_commitment_is_answered_and_nothing_is_recorded(node: Node, information: bytes) -> None:
    with Peer(node.port) as peer:
        assert peer.associate(contexts=(STORAGE_COMMITMENT,)) == 2
        peer.send(p_data(1, 3, action_command()))
        for start in range(0, len(information) or 1, 100_000):
            piece = information[start : start + 100_000]
            peer.send(p_data(1, 2 if start + 100_000 >= len(information) else 0, piece))
        assert status_of(peer.receive()) in (0x0115, 0x0110)
    assert node.ledger.due_commitment_reports(datetime.now(UTC) + timedelta(days=1)) == []


def test_a_request_for_commitment_that_does_not_end_is_dropped(node: Node) -> None:
    with Peer(node.port) as peer:
        assert peer.associate(contexts=(STORAGE_COMMITMENT,)) == 2
        peer.send(p_data(1, 3, action_command()))
        for _ in range(25):
            if not peer.send_as_far_as_it_goes(p_data(1, 0, bytes(100_000))):
                break
        assert peer.is_cut_off()


def test_a_cancel_and_an_unasked_release_are_taken_calmly(node: Node) -> None:
    with attacker(node) as peer:
        peer.send(p_data(MR, 3, store_command(an_image(), CommandField=0x0FFF, CommandDataSetType=0x0101)))
        peer.send(p_data(ECHO, 3, echo_command()))
        assert status_of(peer.receive()) == 0
        peer.send(pdu(5, bytes(4)))
        assert peer.receive() == (6, bytes(4))


def test_only_unknown_contexts_make_an_association_without_any(node: Node) -> None:
    with Peer(node.port) as peer:
        assert peer.associate(contexts=("1.2.3.4", "1.2.840.10008.5.1.4.1.2.1.1")) == 2
        peer.send(p_data(1, 3, echo_command()))
        assert peer.is_cut_off()


@pytest.mark.parametrize(("item", "what"), [(0x30, "abstract syntax"), (0x40, "transfer syntax")])
def test_a_context_without_a_syntax_is_refused_in_one_line(node: Node, item: int, what: str) -> None:
    """Its sub-item is given the type of the other, which the context then has twice."""
    request = bytearray(associate_request())
    request[request.index(bytes([item, 0, 0]))] = 0x70 - item
    with capture_logs() as logs, Peer(node.port) as peer:
        peer.send(bytes(request))
        assert peer.is_cut_off()
        assert eventually(lambda: node.receiver.connections == 0)
    assert [(line["log_level"], line["why"]) for line in logs if "why" in line] == [
        ("warning", f"presentation context 1 names no {what}")
    ]
    assert not [line for line in logs if line["log_level"] == "error"]


def test_a_peer_that_never_reads_its_answers_is_dropped(node: Node) -> None:
    with attacker(node) as peer:
        peer.socket.settimeout(2)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood, sent = p_data(ECHO, 3, echo_command()) * 500, 0
        while sent < 50 * MEGABYTE and peer.send_as_far_as_it_goes(flood):
            sent += len(flood)
        assert sent < 50 * MEGABYTE


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), st.sampled_from([1, 3, 5]), st.binary(max_size=300)), max_size=6)
)
def test_no_sequence_of_fragments_disturbs_the_node(node: Node, fragments: list[tuple[int, int, bytes]]) -> None:
    with attacker(node) as peer:
        for control, context_id, data in fragments:
            if not peer.send_as_far_as_it_goes(p_data(context_id, control, data)):
                break
    assert node.files("studies") == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_conversations_disturb_nothing(node: Node) -> None:
    image = an_image()
    conversation = p_data(ECHO, 3, echo_command()) + p_data(MR, 3, store_command(image)) + p_data(MR, 2, encoded(image))
    mutate = random.Random(11)
    for round_ in range(250):
        sent = bytearray(conversation if round_ % 5 else associate_request())
        for _ in range(mutate.randint(1, 12)):
            at = mutate.randrange(min(len(sent), 400) if mutate.random() < 0.7 else len(sent))
            match mutate.randrange(3):
                case 0:
                    sent[at] = mutate.randrange(256)
                case 1:
                    del sent[at : at + mutate.randint(1, 8)]
                case _:
                    sent[at:at] = mutate.randbytes(mutate.randint(1, 8))
        with Peer(node.port) as peer:
            if round_ % 5:
                assert peer.associate() == 2
            peer.send_as_far_as_it_goes(bytes(sent))
            peer.socket.settimeout(0.02)
            try:
                while peer.receive() is not None:
                    pass
            except TimeoutError:
                pass
        if round_ % 50 == 0:
            assert echoes(node.port)

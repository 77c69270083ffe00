"""DICOM with TLS into the node: who is let in, and what the log says of the others."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.uid import MRImageStorage
from structlog.testing import capture_logs

from node.settings import ConfigError, ReceiverSettings, Settings
from node.settings.connections import ReceiverTlsSettings
from tests.certificates import Authority, Identity, client
from tests.node.receiving import (
    Node,
    Peer,
    associate_request,
    associated,
    echoes,
    eventually,
    running_node,
    send,
    slices,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Identity:
    return authority.issue("cmbnode", "127.0.0.1")


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Identity:
    return authority.issue("modality", "127.0.0.1")


@contextmanager
def tls_node(folder: Path, authority: Authority, own: Identity, **tls: Any) -> Iterator[Node]:
    with running_node(folder, tls={"port": 0, "ca_file": authority.ca_file, **own.settings, **tls}) as node:
        yield node


@pytest.fixture(scope="module")
def node(authority: Authority, own: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with tls_node(tmp_path_factory.mktemp("node"), authority, own) as node:
        yield node


def refusal(node: Node, context: ssl.SSLContext) -> str:
    """Try to associate, and return why the log says that it was refused, in its one line."""
    with capture_logs() as log:
        assert not echoes(node.tls_port, tls=context)
        return only(log, "TLS connection refused")["why"]


def only(log: list[Any], event: str) -> Any:
    """The one line of the log with this event; nothing else is a warning."""
    assert eventually(lambda: any(line["event"] == event for line in log))
    (line,) = [line for line in log if line["event"] == event]
    assert [other for other in log if other["log_level"] in ("warning", "error") and other is not line] == []
    return line


def test_images_arrive_on_both_ports_at_the_same_time(node: Node, authority: Authority, modality: Identity) -> None:
    first, second, third = slices(3)
    secure = client(authority, modality)
    with associated(node.tls_port, tls=secure) as a, associated(node.port) as b:
        assert [a.send_c_store(first).Status, b.send_c_store(second).Status, a.send_c_store(third).Status] == [0, 0, 0]
    assert node.instances() == 3


def test_a_large_image_arrives_unchanged(node: Node, authority: Authority, modality: Identity) -> None:
    (image,) = slices(1, series_number=9)
    image.PixelData, image.Rows, image.Columns = os.urandom(2 * 1024 * 1024), 1024, 1024
    assert [answer.Status for answer in send(node.tls_port, image, tls=client(authority, modality))] == [0]
    assert any(image.PixelData in file.read_bytes() for file in node.files())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_and_logged_with_the_peers_name(
    node: Node, authority: Authority, modality: Identity, version: ssl.TLSVersion
) -> None:
    context = client(authority, modality)
    context.minimum_version = context.maximum_version = version
    with capture_logs() as log:
        assert echoes(node.tls_port, tls=context)
        line = only(log, "association accepted")
    assert (line["certificate"], line["tls"]) == ("modality", version.name.replace("_", "."))


@pytest.mark.parametrize(
    "suite", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"]
)
def test_weak_suites_are_refused(node: Node, authority: Authority, modality: Identity, suite: str) -> None:
    context = client(authority, modality, ciphers=f"{suite}:@SECLEVEL=0")
    assert "no cipher suite that BCP 195 recommends" in refusal(node, context)


def test_an_old_version_is_refused(node: Node, authority: Authority, modality: Identity) -> None:
    context = client(authority, modality, ciphers="ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "it offers neither TLS 1.2 nor TLS 1.3" in refusal(node, context)


def test_a_peer_without_a_certificate_is_refused(node: Node, authority: Authority) -> None:
    assert "it showed no certificate, and this node requires one" in refusal(node, client(authority, None))


def test_a_certificate_of_another_authority_is_refused(node: Node, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Another CA").issue("stranger")
    line = refusal(node, client(authority, stranger))
    assert "its certificate is not from an authority in ca_file" in line


def test_an_expired_certificate_is_refused(node: Node, authority: Authority) -> None:
    expired = authority.issue("expired", valid=timedelta(days=-1))
    assert "its certificate has expired" in refusal(node, client(authority, expired))


def test_plain_dicom_on_the_tls_port_is_refused(node: Node) -> None:
    with capture_logs() as log, Peer(node.tls_port) as peer:
        peer.send(associate_request())
        while peer.socket.recv(100):
            pass
        why = only(log, "TLS connection refused")["why"]
    assert why == "it does not use TLS on this port; it must use TLS here, or the port without TLS"


def test_tls_on_the_plain_port_is_refused(node: Node, authority: Authority, modality: Identity) -> None:
    with capture_logs() as log:
        assert not echoes(node.port, tls=client(authority, modality))
        assert "the peer uses TLS, and this port is for DICOM without TLS" in only(log, "refused")["why"]


def test_a_peer_that_does_not_finish_the_handshake_is_dropped(
    authority: Authority, own: Identity, tmp_path: Path
) -> None:
    tls = {"port": 0, "ca_file": authority.ca_file, **own.settings}
    with (
        running_node(tmp_path, tls=tls, idle_timeout_s=0.3) as node,
        capture_logs() as log,
        Peer(node.tls_port) as peer,
    ):
        peer.send(b"\x16\x03\x01")
        assert peer.is_cut_off()
        assert "it did not complete the TLS handshake in time" in only(log, "TLS connection refused")["why"]
        assert eventually(lambda: node.receiver.connections == 0)


def test_a_peer_that_sends_garbage_after_the_handshake_is_aborted(
    node: Node, authority: Authority, modality: Identity
) -> None:
    with socket.create_connection(("127.0.0.1", node.tls_port), timeout=10) as raw:
        secure = client(authority, modality).wrap_socket(raw, server_hostname="127.0.0.1")
        secure.sendall(b"\x09" * 64)
        assert secure.recv(1) == b"\x07"  # A-ABORT
    assert eventually(lambda: node.receiver.connections == 0)


def test_the_limits_count_both_ports_together(
    authority: Authority, own: Identity, modality: Identity, tmp_path: Path
) -> None:
    tls = {"port": 0, "ca_file": authority.ca_file, **own.settings}
    with running_node(tmp_path, tls=tls, max_associations=1) as node:
        with associated(node.port) as association:
            assert association.is_established
            assert not echoes(node.tls_port, tls=client(authority, modality))
        assert eventually(lambda: echoes(node.tls_port, tls=client(authority, modality)))


def test_a_certificate_must_name_the_peer_where_that_is_asked(
    authority: Authority, own: Identity, tmp_path: Path
) -> None:
    with tls_node(tmp_path, authority, own, check_name=True) as node:
        for names in (("peer", "127.0.0.1"), ("peer", "localhost"), ("localhost",)):
            assert echoes(node.tls_port, tls=client(authority, authority.issue(*names)))
        for names in (("peer", "10.1.2.3", "pacs.invalid"), ("peer",)):
            why = refusal(node, client(authority, authority.issue(*names)))
            assert "not 127.0.0.1 or a host name with that address" in why


def test_without_mutual_no_certificate_is_required(authority: Authority, own: Identity, tmp_path: Path) -> None:
    with tls_node(tmp_path, authority, own, mutual=False, ca_file=None) as node:
        assert echoes(node.tls_port, tls=client(authority, None))


def test_the_plain_port_can_be_closed(authority: Authority, own: Identity, modality: Identity, tmp_path: Path) -> None:
    with tls_node(tmp_path, authority, own, only=True) as node:
        assert node.port == node.tls_port
        assert echoes(node.port, tls=client(authority, modality))
        assert not echoes(node.port)


def test_new_certificates_are_used_without_a_restart(authority: Authority, modality: Identity, tmp_path: Path) -> None:
    own = authority.issue("renewed", "127.0.0.1")
    with tls_node(tmp_path, authority, own) as node, associated(node.tls_port, tls=client(authority, modality)) as old:
        before = shown_by(node, authority, modality)
        own.key.write_text("nonsense")
        with capture_logs() as log:
            assert shown_by(node, authority, modality) == before
            assert any("the changed certificates are not used" in line["event"] for line in log)
        authority.issue("renewed", "127.0.0.1", into=own)
        assert shown_by(node, authority, modality) != before
        assert old.send_c_echo().Status == 0


def shown_by(node: Node, authority: Authority, identity: Identity) -> bytes | None:
    """The certificate that the node shows now."""
    with (
        socket.create_connection(("127.0.0.1", node.tls_port), timeout=10) as raw,
        client(authority, identity).wrap_socket(raw, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(binary_form=True)


def test_an_authority_that_is_no_longer_named_is_no_longer_trusted(
    authority: Authority, own: Identity, modality: Identity, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.ca_file.read_bytes())
    with tls_node(tmp_path / "node", authority, own, ca_file=trusted) as node:
        assert echoes(node.tls_port, tls=client(authority, modality))
        trusted.write_bytes(Authority(tmp_path / "new", "New CA").ca_file.read_bytes())
        assert not echoes(node.tls_port, tls=client(authority, modality))


def test_a_file_that_is_no_certificate_is_named_at_the_start(
    authority: Authority, own: Identity, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"wrong\.pem with .*cannot be used as a certificate or key"):
        tls_node(tmp_path, authority, own, certificate_key=wrong).__enter__()


@pytest.mark.parametrize(
    ("change", "what"),
    [({"ca_file": None}, "mutual TLS needs ca_file"), ({"mutual": False, "check_name": True}, "needs mutual = true")],
)
def test_settings_that_would_let_anyone_in_are_refused(
    authority: Authority, own: Identity, change: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValidationError, match=what):
        ReceiverTlsSettings(**{"ca_file": authority.ca_file, **own.settings, **change})


def test_the_tls_port_is_set_in_the_environment(
    authority: Authority, own: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CERTIFICATE", own.certificate), ("CERTIFICATE_KEY", own.key), ("CA_FILE", authority.ca_file)):
        monkeypatch.setenv(f"CMBNODE_RECEIVER__TLS__{name}", str(value))
    assert Settings().receiver.ports == (11112, 2762)


@pytest.mark.parametrize(
    ("tls", "host"),
    [({"only": True}, "0.0.0.0"), ({}, "127.0.0.1"), ({"only": True, "mutual": False}, "127.0.0.1")],
)
def test_certificates_say_who_may_send_if_there_is_no_other_way_in(
    authority: Authority, own: Identity, tls: dict[str, Any], host: str
) -> None:
    settings = ReceiverTlsSettings(**{"ca_file": authority.ca_file, **own.settings, **tls})
    assert ReceiverSettings(tls=settings).listen_host == host


def test_objects_are_refused_one_by_one_as_without_tls(node: Node, authority: Authority, modality: Identity) -> None:
    (image,) = slices(1, series_number=5)
    del image.StudyInstanceUID
    with associated(node.tls_port, tls=client(authority, modality), contexts=(MRImageStorage,)) as association:
        assert association.send_c_store(image).Status == 0xC000
        assert association.send_c_echo().Status == 0

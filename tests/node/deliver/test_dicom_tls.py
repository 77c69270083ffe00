"""DICOM with TLS out of the node: what is sent, and the one line that says why nothing is."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from node.deliver import SendResult, Unreachable, open_destination
from node.retrieve.dicom_qr import QueryRetrieve
from node.retrieve.source import SourceError
from node.settings import DicomDestination
from node.settings.priors import DicomPacs
from tests.certificates import Authority, Identity, server
from tests.node.commands.test_cli import run
from tests.node.jobs import capture
from tests.node.reports import job


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Another CA")


@pytest.fixture(scope="module")
def own(authority: Authority) -> Identity:
    return authority.issue("cmbnode")


@pytest.fixture(scope="module")
def pacs(authority: Authority) -> Identity:
    return authority.issue("pacs", "127.0.0.1")


@contextmanager
def scp(context: ssl.SSLContext | None) -> Iterator[int]:
    """A storage SCP of pynetdicom."""
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    entity.add_supported_context(SecondaryCaptureImageStorage)
    handlers: list[Any] = [(evt.EVT_C_STORE, lambda _event: 0x0000)]
    running = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)
    try:
        yield running.server_address[1]
    finally:
        threading.Thread(target=running.shutdown).start()


def settings(port: int, authority: Authority, own: Identity | None, **more: Any) -> DicomDestination:
    certificates = own.settings if own is not None else {"mutual": False}
    where = {"ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 5}
    return DicomDestination(**{**where, "tls": True, "ca_file": authority.ca_file, **certificates, **more})


def refusal(to: DicomDestination) -> str:
    with pytest.raises(Unreachable) as error:
        open_destination(to, "CMBNODE").check()
    text = str(error.value)
    assert text.startswith(f"PACS@127.0.0.1:{to.port} ")
    assert "\n" not in text
    return text


def test_results_are_delivered_with_both_certificates_checked(
    tmp_path: Path, authority: Authority, own: Identity, pacs: Identity
) -> None:
    path, answers = tmp_path / "capture.dcm", list[SendResult]()
    capture(job()).save_as(path, enforce_file_format=True)
    with scp(server(authority, pacs)) as port:
        destination = open_destination(settings(port, authority, own), "CMBNODE")
        assert destination.check() == "answers C-ECHO"
        destination.send([path], answers.append)
    assert [answer.accepted for answer in answers] == [True]


def test_a_pacs_of_another_authority_is_not_sent_to(authority: Authority, another: Authority, own: Identity) -> None:
    with scp(server(authority, another.issue("pacs", "127.0.0.1"))) as port:
        text = refusal(settings(port, authority, own))
    assert "cannot be reached by TLS: its certificate is not from an authority in ca_file" in text


def test_a_pacs_whose_certificate_has_expired_is_not_sent_to(authority: Authority, own: Identity) -> None:
    with scp(server(authority, authority.issue("old", "127.0.0.1", valid=timedelta(days=-1)))) as port:
        assert "its certificate has expired" in refusal(settings(port, authority, own))


def test_a_certificate_must_name_the_host_unless_set_otherwise(authority: Authority, own: Identity) -> None:
    with scp(server(authority, authority.issue("elsewhere", "10.9.9.9", "pacs.invalid"))) as port:
        assert "its certificate names another address" in refusal(settings(port, authority, own))
        open_destination(settings(port, authority, own, check_name=False), "CMBNODE").check()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_pacs_that_requires_a_certificate_says_so(
    authority: Authority, pacs: Identity, version: ssl.TLSVersion
) -> None:
    context = server(authority, pacs)
    context.maximum_version = version
    with scp(context) as port:
        text = refusal(settings(port, authority, None))
    assert "requires a certificate" in text


def test_a_pacs_that_refuses_the_nodes_certificate_says_why(
    authority: Authority, another: Authority, pacs: Identity
) -> None:
    expired = authority.issue("expired", valid=timedelta(days=-1))
    with scp(server(authority, pacs)) as port:
        text = refusal(settings(port, authority, another.issue("stranger")))
        assert "it does not trust the authority of this node's certificate (certificate)" in text
        assert "says that this node's certificate (certificate) has expired" in refusal(
            settings(port, authority, expired)
        )


def test_a_pacs_without_tls_on_this_port_is_told_apart(authority: Authority, own: Identity) -> None:
    with scp(None) as port:
        text = refusal(settings(port, authority, own))
    assert "does not use TLS on this port; set tls = false, or use its port for TLS" in text


def test_a_pacs_that_expects_tls_on_this_port_is_told_apart(authority: Authority, pacs: Identity) -> None:
    with scp(server(authority, pacs)) as port:
        text = refusal(DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5))
    assert "does this port expect TLS (tls = true)?" in text


def test_old_versions_and_weak_suites_are_not_offered(authority: Authority, own: Identity, pacs: Identity) -> None:
    weak = server(authority, pacs)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:AES128-SHA:@SECLEVEL=0")
    old = server(authority, pacs)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with scp(weak) as weak_port, scp(old) as old_port:
        assert "no cipher suite in common" in refusal(settings(weak_port, authority, own))
        assert "supports neither TLS 1.2 nor TLS 1.3" in refusal(settings(old_port, authority, own))


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, authority: Authority, pacs: Identity) -> None:
    own = Authority(tmp_path).issue("cmbnode")  # of an authority that the PACS does not know
    with scp(server(authority, pacs)) as port:
        destination = open_destination(settings(port, authority, own), "CMBNODE")
        with pytest.raises(Unreachable):
            destination.check()
        authority.issue("cmbnode", into=own)
        assert destination.check() == "answers C-ECHO"


def test_a_pacs_that_is_asked_for_earlier_studies_is_asked_by_tls(
    authority: Authority, another: Authority, own: Identity, pacs: Identity
) -> None:
    with scp(server(authority, pacs)) as port:
        asked = {"ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True, "ca_file": authority.ca_file}
        with pytest.raises(SourceError, match="does not offer Study Root Query/Retrieve"):  # it has no such service
            QueryRetrieve(DicomPacs(**asked, **own.settings), "CMBNODE").series("1.2.3")
        with pytest.raises(SourceError, match="does not trust the authority of this node's certificate"):
            QueryRetrieve(DicomPacs(**asked, **another.issue("x").settings), "CMBNODE").series("1.2.3")


def test_the_command_says_it_in_one_line(
    tmp_path: Path, authority: Authority, another: Authority, own: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.toml"
    with scp(server(authority, another.issue("pacs", "127.0.0.1"))) as port:
        config.write_text(
            f'[destinations.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\ntls = true\n'
            f'ca_file = "{authority.ca_file}"\ncertificate = "{own.certificate}"\ncertificate_key = "{own.key}"\n'
        )
        status, _, err = run(capsys, "echo", "pacs", "--config", config)
    assert status == 1
    (line,) = err.splitlines()
    assert "its certificate is not from an authority in ca_file" in line


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"tls": True}, "set mutual = false"),
        ({"ca_file": Path(__file__)}, "set tls = true"),
        ({"tls": True, "mutual": False, "certificate_key": Path(__file__)}, "certificate_key without certificate"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        DicomDestination(ae_title="PACS", host="127.0.0.1", port=104, **given)

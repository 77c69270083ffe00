"""How are connections secured by TLS? One policy for every kind of connection, and plain words for what goes wrong.

The policy is the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12): TLS 1.3 or 1.2, with
forward secrecy and authenticated encryption. Certificates are read again when their files change.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog

from node.settings import ConfigError
from node.settings.connections import ReceiverTlsSettings, TlsSettings

TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The suites of TLS 1.2 that RFC 9325 recommends, and ChaCha20; those of TLS 1.3 are all allowed."""

PLAIN_CLIENT = "set tls = false, or use its port for TLS"
"""What to do where the node opened the connection and the other side does not use TLS."""

_log = structlog.get_logger(__name__)


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Make the context for a connection that the node opens.

    Raises
    ------
    ConfigError
        If a file in the settings does not contain a certificate or key.
    """
    with _naming(settings.ca_file):
        context = ssl.create_default_context(cafile=settings.ca_file)
    _restrict(context)
    context.check_hostname = settings.verify and settings.check_name
    if not settings.verify:
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate is not None:
        _load_own(context, settings.certificate, settings.certificate_key)
    return context


class ServerContext:
    """The context for connections that the node accepts, made again when one of its files has changed.

    Raises
    ------
    ConfigError
        If a file in the settings does not contain a certificate or key, at the start; later the log says so, and
        the earlier certificates stay in use.
    """

    def __init__(self, settings: ReceiverTlsSettings) -> None:
        self.settings = settings
        self._files = [file for file in (settings.certificate, settings.certificate_key, settings.ca_file) if file]
        self._lock = threading.Lock()
        self._seen = self._versions()
        self._context = self._make()

    def current(self) -> ssl.SSLContext:
        """The context with the certificates as they are now."""
        with self._lock:
            versions = self._versions()
            if versions != self._seen:
                self._seen = versions
                try:
                    self._context = self._make()
                except ConfigError as error:
                    _log.error("the changed certificates are not used; the earlier ones stay in use", why=str(error))
                else:
                    _log.info("certificates read again", files=[str(file) for file in self._files])
            return self._context

    def _make(self) -> ssl.SSLContext:
        settings = self.settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _restrict(context)
        context.options |= ssl.OP_NO_TICKET  # a resumed session would not check the peer's certificate again
        context.num_tickets = 0
        context.sslsocket_class = ServerConnection
        _load_own(context, settings.certificate, settings.certificate_key)
        if settings.mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            with _naming(settings.ca_file):
                context.load_verify_locations(settings.ca_file)
        return context

    def _versions(self) -> list[tuple[int, int] | None]:
        """What tells one version of each file from the next; ``None`` for a file that is not there."""
        versions: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                found = file.stat()
                versions.append((found.st_mtime_ns, found.st_ino))
            except OSError:
                versions.append(None)
        return versions


class ServerConnection(ssl.SSLSocket):
    """A non-blocking connection that behaves like one without TLS: reading raises :class:`BlockingIOError`."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Read what has arrived."""
        try:
            return super().recv_into(buffer, nbytes, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Say that nothing more will be sent, as TLS wants it said (close_notify), then as TCP does."""
        with suppress(OSError, ValueError):
            self.unwrap()
        super().shutdown(how)


class PeerNameError(OSError):
    """A peer's certificate is valid, but names somebody else."""


def check_peer_address(certificate: Any, address: str) -> None:
    """Check that a peer's certificate names its address, or a host name that has this address.

    Parameters
    ----------
    certificate : dict
        As :meth:`ssl.SSLSocket.getpeercert` returns it.

    Raises
    ------
    PeerNameError
        If it names neither.
    """
    alternative = certificate.get("subjectAltName", ())
    hosts = [value for kind, value in alternative if kind == "DNS"] or (
        [] if alternative else common_names(certificate)
    )
    if any(kind == "IP Address" and _same_address(value, address) for kind, value in alternative):
        return
    for host in hosts:
        with suppress(OSError, UnicodeError):
            if any(_same_address(str(found[4][0]), address) for found in socket.getaddrinfo(host, None)):
                return
    named = ", ".join([value for _, value in alternative] or hosts) or "nobody"
    raise PeerNameError(f"its certificate names {named}, not {address} or a host name with that address")


def common_names(certificate: Any) -> list[str]:
    """The Common Names of a certificate's subject."""
    return [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]


def explain_tls(error: OSError, *, plain: str = PLAIN_CLIENT, own: str = "certificate") -> str:
    """Say why a TLS connection failed, in one line.

    Parameters
    ----------
    plain : str
        What to do if the other side does not use TLS.
    own : str
        The setting of the node's own certificate.
    """
    reason = str(getattr(error, "reason", None) or "")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _REFUSED_BY_NODE.get(error.verify_code) or f"its certificate is refused: {error.verify_message}"
    if isinstance(error, PeerNameError):
        return str(error)
    if reason in _NO_TLS:
        return f"it does not use TLS on this port; {plain}"
    for part, words in _ALERTS.items():
        if part in reason:
            return words.format(own=own)
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return "it closed the connection during the TLS handshake; does it use TLS on this port?"
    if isinstance(error, TimeoutError):
        return "it did not complete the TLS handshake in time; does it use TLS on this port?"
    return f"the TLS handshake failed: {reason.lower().replace('_', ' ') or error}"


_UNTRUSTED = "its certificate is not from an authority in ca_file"
_REFUSED_BY_NODE = {  # X509_V_ERR_… of OpenSSL
    9: "its certificate is not valid yet; is the clock of this machine right?",
    10: "its certificate has expired",
    18: f"{_UNTRUSTED} (self-signed)",
    19: f"{_UNTRUSTED} (another authority)",
    20: f"{_UNTRUSTED} (unknown issuer)",
    21: f"{_UNTRUSTED} (incomplete chain)",
    62: "its certificate names another host; correct host, or set check_name = false",
    64: "its certificate names another address; correct host, or set check_name = false",
}
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG",
           "RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE", "UNEXPECTED_MESSAGE")  # fmt: skip
_ALERTS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and this node requires one",
    "NO_SHARED_CIPHER": "it offers no cipher suite that BCP 195 recommends",
    "UNSUPPORTED_PROTOCOL": "it offers neither TLS 1.2 nor TLS 1.3",
    "CERTIFICATE_REQUIRED": "it requires a certificate from this node; set {own}",
    "ALERT_UNKNOWN_CA": "it does not trust the authority of this node's certificate ({own})",
    "ALERT_CERTIFICATE_EXPIRED": "it says that this node's certificate ({own}) has expired",
    "ALERT_BAD_CERTIFICATE": "it refuses this node's certificate ({own})",
    "ALERT_CERTIFICATE_UNKNOWN": "it refuses this node's certificate ({own})",
    "ALERT_CERTIFICATE_REVOKED": "it says that this node's certificate ({own}) is revoked",
    "ALERT_UNSUPPORTED_CERTIFICATE": "it does not support the kind of this node's certificate ({own})",
    "ALERT_ACCESS_DENIED": "it denies access to this node's certificate ({own})",
    "ALERT_PROTOCOL_VERSION": "it supports neither TLS 1.2 nor TLS 1.3",
    "ALERT_HANDSHAKE_FAILURE": "it has no cipher suite in common with this node, or requires a certificate ({own})",
    "ALERT_INSUFFICIENT_SECURITY": "it has no cipher suite in common with this node",
}


def _restrict(context: ssl.SSLContext) -> None:
    """Allow what BCP 195 allows."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    with _naming(*filter(None, (key, certificate))):
        context.load_cert_chain(certificate, key, password="")  # never ask for a password on the terminal


@contextmanager
def _naming(*files: Path | None) -> Iterator[None]:
    """Name the files of an error, which OpenSSL does not."""
    try:
        yield
    except (ssl.SSLError, OSError) as error:
        names: Sequence[str] = [str(file) for file in files if file] or ["the system's certificate authorities"]
        raise ConfigError(
            f"cannot be used as a certificate or key: {getattr(error, 'reason', None) or error}",
            where=" with ".join(names),
            do="use PEM files, and a key without password that belongs to the certificate",
        ) from error


def _same_address(one: str, other: str) -> bool:
    try:
        return ip_address(one.strip().partition("%")[0]) == ip_address(other)
    except ValueError:
        return False

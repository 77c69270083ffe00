"""Certificates of a test's own authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, each in a PEM file."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, Any]:
        """As settings of a connection name them."""
        return {"certificate": self.certificate, "certificate_key": self.key}


class Authority:
    """A certificate authority; its own certificate is `ca_file`."""

    def __init__(self, folder: Path, name: str = "Hospital CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._name, self._key = folder, _name(name), ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / "ca.pem"
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = _builder(self._name, self._key, 3650 * DAY).issuer_name(self._name)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(usage, critical=True).add_extension(key_id, critical=False)
        self.ca_file.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def issue(
        self, name: str, *alternative: str, valid: timedelta = 365 * DAY, into: Identity | None = None
    ) -> Identity:
        """Issue a certificate with this Common Name and these host names and addresses.

        Parameters
        ----------
        valid : timedelta
            From now; a negative one has ended already.
        into : Identity, optional
            Whose files are replaced.
        """
        where = into or Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), key, valid).issuer_name(self._name)
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_alternative, alternative))), False)
        key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = builder.add_extension(key_id, critical=False).sign(self._key, hashes.SHA256())
        where.certificate.write_bytes(_pem(made))
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        where.key.write_bytes(key.private_bytes(*form))
        return where


def client(authority: Authority, identity: Identity | None, *, ciphers: str = "") -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    return context


def server(authority: Authority, identity: Identity, *, mutual: bool = True) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)
    return context


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(min(now, now + valid) - DAY).not_valid_after(now + valid)


def _alternative(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)

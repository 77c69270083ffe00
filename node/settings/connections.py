"""What can be set of a connection? Whom it leads to, how long an answer may take, and its certificates (TLS)."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

DICOM_TLS_PORT = 2762
"""The port that IANA has registered for DICOM by TLS (`dicom-tls`)."""


def _ae_title(value: str) -> str:
    """Check an AE title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def _file(value: Path) -> Path:
    """Check that a file is there now, not when the first result is to be sent."""
    if not value.is_file():
        raise ValueError(f"no such file: {value}")
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
ExistingFile = Annotated[Path, AfterValidator(_file)]


class ConnectionSettings(BaseModel):
    """What every connection to another system has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(30.0, gt=0, description="Longest wait for a connection or an answer, in seconds")

    @property
    @abstractmethod
    def address(self) -> str:
        """The other system as an administrator would write it."""


class TlsSettings(ConnectionSettings):
    """Which certificates are trusted, and which one the node shows."""

    verify: bool = Field(True, description="Check the server's certificate; false: accept any")
    check_name: bool = Field(
        True, description="The server's certificate must name its host (`host`, or the host of `url`)"
    )
    ca_file: ExistingFile | None = Field(None, description="Certificate authorities to trust (PEM); none: the system's")
    certificate: ExistingFile | None = Field(
        None, description="The node's own certificate (PEM), if the server requires one"
    )
    certificate_key: ExistingFile | None = Field(None, description="Its private key (PEM), if in a separate file")

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.certificate_key is not None and self.certificate is None:
            raise ValueError("certificate_key without certificate: name both")
        return self


class OptionalTlsSettings(TlsSettings):
    """TLS, where the address does not say whether it is used."""

    tls: bool = Field(False, description="Use TLS")

    @model_validator(mode="after")
    def _certificates_need_tls(self) -> Self:
        if not self.tls and (self.ca_file is not None or self.certificate is not None):
            raise ValueError("certificates are named, but TLS is not used: set tls = true, or remove them")
        return self


class DicomPeerSettings(OptionalTlsSettings):
    """Another DICOM node that the node calls."""

    ae_title: AETitle = Field(description="AE title of the other system")
    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(ge=1, le=65535, description="DICOM port")
    mutual: bool = Field(
        True, description="With `tls`, the node shows its certificate; false: the other system requires none"
    )

    @model_validator(mode="after")
    def _mutual_needs_certificate(self) -> Self:
        if self.tls and self.mutual and self.certificate is None:
            raise ValueError("tls needs the node's certificate; if the other system requires none, set mutual = false")
        return self

    @property
    def address(self) -> str:
        """The other system as an administrator would write it."""
        return f"{self.ae_title}@{bracketed(self.host)}:{self.port}"


class ReceiverTlsSettings(BaseModel):
    """The receiver's TLS port; without `certificate` there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int = Field(DICOM_TLS_PORT, ge=0, le=65535, description="DICOM port with TLS; 0 picks a free one")
    certificate: ExistingFile = Field(description="The node's certificate (PEM), with intermediate certificates if any")
    certificate_key: ExistingFile | None = Field(None, description="Its private key (PEM), if in a separate file")
    mutual: bool = Field(True, description="Peers must show a certificate that `ca_file` confirms")
    ca_file: ExistingFile | None = Field(None, description="Certificate authorities of the peers' certificates (PEM)")
    check_name: bool = Field(
        False,
        description="A peer's certificate must name its address, or a host name with that address "
        "(Subject Alternative Name, or Common Name if there is none)",
    )
    only: bool = Field(False, description="Do not listen on `receiver.port`: TLS is the only way in")

    @model_validator(mode="after")
    def _mutual_needs_authorities(self) -> Self:
        if self.mutual and self.ca_file is None:
            raise ValueError("mutual TLS needs ca_file, which says whose certificates are accepted")
        if self.check_name and not self.mutual:
            raise ValueError("check_name needs mutual = true: without a certificate there is no name")
        return self


def bracketed(host: str) -> str:
    """Write a host as in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host

"""What can be set about an audit repository? Where it is, how it is reached, and what the node is called there."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .connections import TlsSettings, bracketed

Identifier = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]


class AuditRepositorySettings(TlsSettings):
    """An audit record repository (DICOM audit messages by syslog, IHE ATNA)."""

    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(6514, ge=1, le=65535, description="Its syslog port: 6514 with TLS, 514 for UDP")
    transport: Literal["tls", "tcp", "udp"] = Field(
        "tls",
        description="`tls` (RFC 5425); `tcp` and `udp` are not encrypted, and what is sent by `udp` may be lost",
    )
    mutual: bool = Field(
        True, description="With `tls`, the node shows its certificate; false: the repository requires none"
    )
    source_id: Identifier | None = Field(None, description="AuditSourceID; none: the node's AE title")
    site_id: Identifier | None = Field(None, description="AuditEnterpriseSiteID; none: it is left out")
    timeout_s: float = Field(5.0, gt=0, le=20, description="Longest wait for a connection or an answer, in seconds")

    @model_validator(mode="after")
    def _certificates_go_with_tls(self) -> Self:
        if self.transport != "tls" and (self.ca_file is not None or self.certificate is not None):
            raise ValueError('certificates are named, but TLS is not used: set transport = "tls", or remove them')
        if self.transport == "tls" and self.mutual and self.certificate is None:
            raise ValueError("TLS needs the node's certificate; if the repository requires none, set mutual = false")
        return self

    @property
    def address(self) -> str:
        """The repository as an administrator would write it."""
        return f"syslog+{self.transport}://{bracketed(self.host)}:{self.port}"

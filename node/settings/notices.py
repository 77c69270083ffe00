"""What can be set about notices? Whom the node tells, of what, and how much a notice says about a patient."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    field_serializer,
    model_validator,
)

from .connections import TlsSettings, bracketed
from .destinations import write_secret
from .receiver import is_loopback

NoticeKind = Literal["stat", "failed", "destination", "disk", "certificate", "qa"]
NOTICE_KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)


def _webhook_url(value: str) -> str:
    """Check an address; unlike that of a service it may have a query, in which some services put their token."""
    url = value.strip()
    try:
        parts = urlsplit(url)
        broken = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        broken = True
    if broken or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("write an address as https://alerts.hospital.example/cmb-node")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with user name and password is not supported; the receiver checks the signature")
    return url


def _mailbox(value: str) -> str:
    """Check a bare address (RFC 5321 `Mailbox`, ASCII)."""
    address = value.strip()
    name, at, domain = address.rpartition("@")
    plain = address.isascii() and address.isprintable() and not set(address) & set(' <>,"')
    if not (at and name and domain and plain):
        raise ValueError("write an address as radiology@hospital.example")
    return address


Mailbox = Annotated[str, AfterValidator(_mailbox)]


class WebhookSettings(TlsSettings):
    """Notices by HTTP POST (JSON)."""

    url: Annotated[str, AfterValidator(_webhook_url)] = Field(description="Address, http or https")
    secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key of the signature (HMAC-SHA-256, header `X-CMBNode-Signature`), preferably in its own file",
    )
    timeout_s: float = Field(10.0, gt=0, le=60, description="Longest wait for a connection or an answer, in seconds")

    @field_serializer("secret", when_used="json-unless-none")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        return write_secret(secret, info)

    @property
    def address(self) -> str:
        """The other system, without what may be a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class EmailSettings(TlsSettings):
    """Notices by e-mail (SMTP)."""

    host: str = Field(min_length=1, description="Host name or address of the mail server")
    port: int = Field(587, ge=1, le=65535, description="Its port: 587 for submission, 465 with TLS, 25 for a relay")
    encryption: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`starttls`, `tls` from the first byte, or `none`"
    )
    username: str | None = Field(None, description="User name, if the server requires one")
    password: SecretStr | None = Field(None, description="Password; preferably in a file of its own")
    sender: Mailbox = Field(description="Address that the mail comes from")
    recipients: tuple[Mailbox, ...] = Field(min_length=1, description="Addresses that it goes to")
    timeout_s: float = Field(10.0, gt=0, le=60, description="Longest wait for a connection or an answer, in seconds")

    @field_serializer("password", when_used="json-unless-none")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        return write_secret(secret, info)

    @model_validator(mode="after")
    def _a_password_is_not_sent_in_the_clear(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.encryption == "none" and not is_loopback(self.host):
            raise ValueError("a password needs encryption: set it to starttls or tls")
        return self

    @property
    def address(self) -> str:
        """The mail server as an administrator would write it."""
        return f"smtp://{bracketed(self.host)}:{self.port}"


class NoticeSettings(BaseModel):
    """Notices by webhook and e-mail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: tuple[NoticeKind, ...] = Field(
        NOTICE_KINDS,
        description="Events to report: results of priority STAT, failed jobs, a destination that is down, a disk that "
        "fills up, a certificate that expires, a run of site QA that was not good",
    )
    identify_by: Literal["study", "accession number", "patient"] = Field(
        "study",
        description="What a notice says about a patient: `study` only the Study Instance UID; `accession number` this "
        "too; `patient` also name, ID, and why a delivery failed",
    )
    gather_s: float = Field(
        60.0, ge=0, description="Events within this many seconds share one message; a STAT result is sent at once"
    )
    destination_down_s: float = Field(
        900.0, ge=0, description="A destination is down when it has accepted nothing for this many seconds"
    )
    webhook: WebhookSettings | None = None
    email: EmailSettings | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The ways that are set."""
        return tuple(name for name in ("webhook", "email") if getattr(self, name) is not None)

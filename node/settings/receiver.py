"""What can be set of the DICOM receiver? Where it listens, who may send, and its limits."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .connections import AETitle, DicomPeerSettings, ReceiverTlsSettings
from .setting_errors import ConfigError

Network = IPv4Network | IPv6Network
WHO_MAY_SEND = "set receiver.peers (networks), receiver.calling_ae_titles, or receiver.allow_anyone = true"
"""What to do where the receiver listens to this machine alone."""


def is_loopback(host: str) -> bool:
    """Say whether an address or name is this machine's own."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class ReceiverSettings(BaseModel):
    """The DICOM receiver."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | None = Field(
        None,
        description="Address to listen on; none: `0.0.0.0` if `peers`, `calling_ae_titles` or `allow_anyone` is set, "
        "else `127.0.0.1`",
    )
    port: int = Field(11112, ge=0, le=65535, description="DICOM port; 0 picks a free one")
    peers: tuple[Network, ...] = Field((), description="Networks (CIDR) that may connect; empty: all")
    calling_ae_titles: tuple[AETitle, ...] = Field((), description="AE titles that may call; empty: all")
    allow_anyone: bool = Field(
        False, description="Listen to other hosts even if neither `peers` nor `calling_ae_titles` is set"
    )
    require_called_ae_title: bool = Field(True, description="Reject associations addressed to another AE title")
    max_associations: int = Field(20, ge=1, description="Maximum number of simultaneous associations")
    max_associations_per_peer: int | None = Field(
        None,
        ge=1,
        description="Maximum number of simultaneous associations from one address; none: half of `max_associations`",
    )
    idle_timeout_s: float = Field(60.0, gt=0, description="An idle connection is closed after this many seconds")
    max_pdu_bytes: int = Field(262_144, ge=16_384, le=16_777_216, description="Largest PDU accepted, in bytes")
    max_instance_bytes: int = Field(2_147_483_648, ge=1_048_576, description="Largest instance accepted, in bytes")
    extra_sop_classes: tuple[str, ...] = Field((), description="Additional storage SOP Class UIDs to accept")
    tls: ReceiverTlsSettings | None = None
    commitment: tuple[DicomPeerSettings, ...] = Field(
        (),
        description="Where reports on storage commitment go (`ae_title`, `host`, `port`, TLS), for systems that are "
        "neither a destination nor a PACS of `priors` or `pull`",
    )

    @model_validator(mode="after")
    def _says_who_may_send(self) -> Self:
        """Refuse to listen to other machines until the settings say who may send."""
        if self.host is not None and not is_loopback(self.host) and not self._accepts_other_machines:
            raise ConfigError(
                f"{self.host} is reachable from other machines, but the settings do not say who may send",
                where="receiver.host",
                do=WHO_MAY_SEND,
            )
        return self

    @property
    def _accepts_other_machines(self) -> bool:
        certified = self.tls is not None and self.tls.only and self.tls.mutual
        return bool(self.peers or self.calling_ae_titles or self.allow_anyone or certified)

    @property
    def listen_host(self) -> str:
        """Address that is listened on."""
        if self.host is not None:
            return self.host
        return "0.0.0.0" if self._accepts_other_machines else "127.0.0.1"  # noqa: S104 - the settings say who may send

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that are listened on: the plain one, the one with TLS, or both."""
        if self.tls is None:
            return (self.port,)
        return (self.tls.port,) if self.tls.only else (self.port, self.tls.port)

    @property
    def associations_per_peer(self) -> int:
        """Most associations of one address at the same time."""
        return self.max_associations_per_peer or max(1, self.max_associations // 2)

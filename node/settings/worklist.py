"""What can be set of the worklist page? Where it listens, who signs in, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .receiver import Network, is_loopback

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
RoleName = Literal["viewer", "reader", "administrator"]


class ProxySignInSettings(BaseModel):
    """Sign-in by a trusted proxy, `[worklist.proxy_sign_in]`; without this table there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    addresses: tuple[Network, ...] = Field(
        min_length=1, description="Addresses or networks (CIDR) of the proxies; headers from others are ignored"
    )
    user_header: HeaderName = Field("Remote-User", description="Header with the user's sign-in name")
    name_header: HeaderName = Field("Remote-Name", description="Header with the user's name on pages and in reports")
    groups_header: HeaderName = Field("Remote-Groups", description="Header with the user's groups, between commas")
    roles: dict[str, RoleName] = Field(
        default_factory=dict,
        description='The role of each group, `{ radiology = "reader", pacs-team = "administrator" }`; of several, the '
        "highest counts",
    )
    default_role: RoleName | None = Field(
        None, description="The role of a user in none of these groups; none: no access"
    )
    passwords: bool = Field(True, description="Whether users may also sign in with a password of the node")
    sign_out_url: str | None = Field(
        None,
        pattern=r"^(/([^/\\\s]\S*)?|https?://[^/\s]\S*)$",
        description="Where *Sign out* leads (`/oauth2/sign_out`, `https://auth.hospital.example/logout`); none: "
        "users of the proxy have no *Sign out*",
    )

    @field_validator("addresses")
    @classmethod
    def _name_some(cls, addresses: tuple[Network, ...]) -> tuple[Network, ...]:
        """Refuse a network that contains every address: everybody could say who they are."""
        if any(network.prefixlen == 0 for network in addresses):
            raise ValueError("name the proxies, not every address")
        return addresses

    @model_validator(mode="after")
    def _somebody_has_a_role(self) -> Self:
        if not self.roles and self.default_role is None:
            raise ValueError("set roles or default_role: without them nobody has a role")
        return self


class WorklistSettings(BaseModel):
    """The worklist page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0 picks a free one")
    hosts: tuple[str, ...] = Field(
        (), description="Host names to answer to besides loopback; empty: all, unless it listens on loopback only"
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="The page's address in the browser, if there is a proxy (`https://cmb.hospital.example`); "
        "https makes the session cookie Secure",
    )
    proxies: tuple[Network, ...] = Field(
        (),
        description="Networks (CIDR) of proxies whose X-Forwarded-For and -Proto are trusted, besides loopback",
    )
    sign_in: bool = Field(
        True, description="Whether users must sign in; `false` is possible only if no other host can reach the page"
    )
    session_idle_s: float = Field(3600.0, gt=0, description="A session ends after this many seconds without use")
    session_limit_s: float = Field(43_200.0, gt=0, description="A session ends after this many seconds in any case")
    wrong_per_account: int = Field(
        5, ge=1, description="Wrong passwords for one name before further attempts must wait"
    )
    wrong_per_address: int = Field(
        30, ge=1, description="Wrong passwords from one address before further attempts must wait"
    )
    wrong_within_s: int = Field(
        300, ge=1, description="Wrong passwords count for this many seconds, which is also the longest wait"
    )
    proxy_sign_in: ProxySignInSettings | None = None
    viewer_url: str | None = Field(
        None,
        description="Address of a study in the site's own viewer, to open it from its page, with `{study_uid}`, "
        "`{accession}` or `{patient_id}` (`https://ohif.example/viewer?StudyInstanceUIDs={study_uid}`)",
    )
    audit_days: float = Field(1095.0, ge=1, description="Audit entries are deleted after this many days")

    @field_validator("viewer_url")
    @classmethod
    def _viewer_url(cls, url: str | None) -> str | None:
        try:
            is_address = url is None or url.format(study_uid="1", accession="2", patient_id="3").startswith(
                ("https://", "http://")
            )
        except (LookupError, ValueError) as error:
            raise ValueError("knows only {study_uid}, {accession} and {patient_id} in braces") from error
        if not is_address:
            raise ValueError("must begin with https:// or http://")
        return url

    @model_validator(mode="after")
    def _sign_in_unless_local(self) -> Self:
        """Without sign-in, everyone who reaches the worklist would be an administrator."""
        is_local = self.url is None and not self.proxies and all(map(is_loopback, (self.host, *self.hosts)))
        if not self.sign_in and not is_local:
            raise ValueError("sign_in = false needs a loopback host, and no url, proxies or other hosts")
        if not self.sign_in and self.proxy_sign_in is not None:
            raise ValueError("sign_in = false contradicts proxy_sign_in")
        return self

    @property
    def all_proxies(self) -> tuple[Network, ...]:
        """Proxies whose word about the client's address counts; those that say who the user is are among them."""
        return (*self.proxies, *(self.proxy_sign_in.addresses if self.proxy_sign_in is not None else ()))

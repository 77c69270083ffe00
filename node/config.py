"""What can be set? One :class:`Settings` object: defaults, then a TOML file, then ``CMBNODE_*`` in the environment."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from platformdirs import user_data_path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from node.change_settings import ChangeSettings
from node.destination_settings import KINDS, AETitle
from node.destination_settings import DestinationSettings as DestinationSettings
from node.destination_settings import DicomDestination as DicomDestination
from node.prior_settings import PriorsSettings
from pipeline.errors import CmbError


class ConfigError(CmbError):
    """A setting is missing or impossible."""


def _time_zone(value: str) -> str:
    """Check the name of a time zone in the IANA data base."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; name one as Europe/Berlin") from None
    return value


TimeZoneName = Annotated[str, AfterValidator(_time_zone)]
Network = IPv4Network | IPv6Network


class ReceiverSettings(BaseModel):
    """The DICOM SCP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - a PACS must reach it
    port: int = Field(11112, ge=0, le=65535, description="DICOM port; 0 picks a free one")
    calling_ae_titles: tuple[AETitle, ...] = Field((), description="Who may call; empty: anyone")
    peers: tuple[Network, ...] = Field((), description="Networks (CIDR) that may connect; empty: any")
    require_called_ae_title: bool = Field(True, description="Refuse associations meant for another AE title")
    max_associations: int = Field(20, ge=1, description="Associations served at the same time")
    idle_timeout_s: float = Field(60.0, gt=0, description="Silence on a connection before it is dropped, seconds")
    max_pdu_bytes: int = Field(262_144, ge=16_384, le=16_777_216, description="Largest PDU taken, bytes")
    max_instance_bytes: int = Field(2_147_483_648, ge=1_048_576, description="Largest object taken, bytes")
    extra_sop_classes: tuple[str, ...] = Field((), description="Further storage SOP Class UIDs to accept")


class SettlingSettings(BaseModel):
    """When is a series complete?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quiet_s: float = Field(
        10.0, ge=0, description="Silence after the last instance before a series can settle, seconds"
    )
    limit_s: float = Field(300.0, ge=0, description="Silence after which it settles even without evidence, seconds")


class QueueSettings(BaseModel):
    """Attempts, leases and retries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int = Field(3, ge=1, description="Analyses tried before a job is failed")
    lease_s: float = Field(30.0, gt=0, description="A worker that is silent for so long has lost its job, seconds")
    sweep_s: float = Field(2.0, gt=0, description="Pause between two sweeps, seconds")
    time_limit_s: float = Field(1800.0, gt=0, description="Longest one analysis may take, seconds")
    grace_s: float = Field(
        8.0, ge=0, description="A worker that is told to stop may finish for so long; then its work goes back, seconds"
    )
    retry_first_s: float = Field(5.0, gt=0, description="First pause after a failed delivery, seconds")
    retry_longest_s: float = Field(900.0, gt=0, description="Longest pause between two delivery attempts, seconds")
    retry_for_s: float = Field(172_800.0, gt=0, description="Deliveries are tried for so long, seconds")


class ArchiveSettings(BaseModel):
    """Disk use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    free_disk_mb: int = Field(2048, ge=0, description="Refuse instances (0xA700) when less is free, MB")
    keep_days: float = Field(14.0, ge=0, description="Images are removed so long after their study was dealt with")


def is_loopback(host: str) -> bool:
    """Say whether an address or name is this machine's own."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class WorklistSettings(BaseModel):
    """The worklist page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0 picks a free one")
    hosts: tuple[str, ...] = Field(
        (), description="Host names it answers to besides loopback; empty: any, unless it listens on loopback only"
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="Its address in the browser when a proxy stands in front (`https://cmb.hospital.example`); "
        "https makes the session's cookie Secure",
    )
    proxies: tuple[Network, ...] = Field(
        (),
        description="Networks (CIDR) of proxies whose X-Forwarded-For and -Proto are believed, besides loopback",
    )
    sign_in: bool | None = Field(
        None, description="Whether people must sign in; none: yes, unless only this machine reaches it"
    )
    session_idle_s: float = Field(3600.0, gt=0, description="A session ends when nobody used it for so long, seconds")
    session_limit_s: float = Field(43_200.0, gt=0, description="A session ends after so long in any case, seconds")
    wrong_per_account: int = Field(5, ge=1, description="Wrong passwords for one name before it must wait")
    wrong_per_address: int = Field(30, ge=1, description="Wrong passwords from one address before it must wait")
    wrong_within_s: int = Field(300, ge=1, description="Within so long, and so long is the wait at most, seconds")
    audit_days: float = Field(1095.0, ge=1, description="Who looked and who changed is kept for so long, days")

    @property
    def reached_by_others(self) -> bool:
        """Whether it is meant for other machines: by its own address, or by the names that a proxy gives it."""
        return self.url is not None or not all(map(is_loopback, (self.host, *self.hosts)))

    @property
    def requires_sign_in(self) -> bool:
        """Whether people have to sign in: as set; where nothing is set, if other machines reach it."""
        return self.reached_by_others if self.sign_in is None else self.sign_in

    @property
    def open_to_all(self) -> bool:
        """Whether other machines can read it without signing in, which every page then says."""
        return self.reached_by_others and not self.requires_sign_in


class ResultSettings(BaseModel):
    """What is made of the findings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_objects: bool = Field(
        False, description="Also send a key object selection of the slices with microbleeds (DICOM KO)"
    )


class Settings(BaseSettings):
    """Everything that can be set. `CMBNODE_RECEIVER__PORT=104` sets ``receiver.port``."""

    model_config = SettingsConfigDict(
        env_prefix="CMBNODE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,  # some are secrets
    )

    data_dir: Path = Field(default_factory=lambda: user_data_path("cmb-node", appauthor=False), description="All data")
    ae_title: AETitle = Field("CMBNODE", description="The node's own AE title")
    database_url: str | None = Field(None, description="SQLAlchemy URL; none: SQLite in the data folder")
    redis_url: str | None = Field(None, description="Redis URL; none: `cmbnode up` starts its own")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run")
    routing_file: Path | None = Field(None, description="TOML rule table; none: the one in the package")
    recognition_file: Path | None = Field(
        None, description="TOML table of the site's own recognition rules, read before those in the package"
    )
    time_zone: TimeZoneName | None = Field(
        None, description="Zone of the times in results (`Europe/Berlin`); none: the host's"
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look")
    destinations: dict[str, DestinationSettings] = Field(default_factory=dict, description="Where results may go")
    receiver: ReceiverSettings = ReceiverSettings()
    settling: SettlingSettings = SettlingSettings()
    queue: QueueSettings = QueueSettings()
    priors: PriorsSettings = PriorsSettings()
    change: ChangeSettings = ChangeSettings()
    results: ResultSettings = ResultSettings()
    archive: ArchiveSettings = ArchiveSettings()
    worklist: WorklistSettings = WorklistSettings()

    @model_validator(mode="after")
    def _pacs_may_send(self) -> Self:
        """What is asked for comes by C-STORE, so the PACS must get through to the receiver."""
        if self.priors.dicom is not None and self.receiver.peers:
            with suppress(ValueError):  # a name: where it leads is known when it calls
                address = ip_address(self.priors.dicom.host)
                if not any(address in network for network in self.receiver.peers):
                    raise ConfigError(
                        f"{address} is asked for earlier studies, but may not send any",
                        where="receiver.peers",
                        do="add the network of priors.dicom.host",
                    )
        return self

    @property
    def zone(self) -> ZoneInfo | None:
        """Time zone of the results; ``None`` is the host's."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.database_url or f"sqlite:///{self.data_dir / 'ledger.sqlite3'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the base class's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, environment, TOML file, defaults."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(config_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Parameters
    ----------
    config_file : Path, optional
        TOML file with the fields of :class:`Settings`.
    **overrides
        Values that win over file and environment; ``None`` means not given.

    Raises
    ------
    ConfigError
        Naming the field, what is wrong with it and where it was set.
    """
    if config_file is not None and not config_file.is_file():
        raise ConfigError("no such configuration file", where=str(config_file))

    class _FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    try:
        return _FileSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(_named(first["loc"]))
        where = f"{config_file or 'settings'}: {field}" if field else str(config_file or "settings")
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(what, where=where, do="see docs/settings.md for every setting") from error
    except ValueError as error:  # the TOML itself
        raise ConfigError(f"not readable as TOML ({error})", where=str(config_file)) from error


def _named(place: tuple[int | str, ...]) -> list[str]:
    """The parts of a setting's name; pydantic puts the kind of a destination between its name and its field."""
    parts = [str(part) for part in place]
    return parts[:2] + parts[3:] if parts[:1] == ["destinations"] and parts[2:3] and parts[2] in KINDS else parts

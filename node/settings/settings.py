"""What can be set? One :class:`Settings` object: defaults, a TOML file, files with secrets, ``CMBNODE_*`` variables."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from .audit_repository import AuditRepositorySettings
from .change import ChangeSettings
from .connections import AETitle, DicomPeerSettings
from .destinations import AnyDestination, DicomDestination, write_secret
from .dicomweb import DicomWebSettings
from .notices import NoticeSettings
from .pacs import PacsSettings
from .priors import PriorsSettings
from .pull import PullSettings
from .qa import QaSettings
from .receiver import WHO_MAY_SEND, ReceiverSettings, is_loopback
from .secrets import secrets_folder, with_password
from .setting_errors import ConfigError, check_variables, explain_mistake, explain_source
from .work_items import WorkItemSettings
from .worklist import WorklistSettings as WorklistSettings


def _time_zone(value: str) -> str:
    """Check the name of a time zone in the IANA data base."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; name one as Europe/Berlin") from None
    return value


SourceName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
TimeZoneName = Annotated[str, AfterValidator(_time_zone)]


class SettlingSettings(BaseModel):
    """When is a series complete?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quiet_s: float = Field(10.0, ge=0, description="A series can settle this many seconds after its last instance")
    limit_s: float = Field(
        300.0, ge=0, description="After this many seconds it settles even without evidence that it is complete"
    )


class QueueSettings(BaseModel):
    """Attempts, leases and retries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int = Field(3, ge=1, description="Analysis attempts before a job fails")
    max_lost_workers: int = Field(
        6, ge=1, description="A job is failed once this many workers died or fell silent while they analysed it"
    )
    lease_s: float = Field(
        30.0, gt=0, description="A worker loses its job after this many seconds without a sign of life"
    )
    sweep_s: float = Field(2.0, gt=0, description="Pause between two sweeps, in seconds")
    time_limit_s: float = Field(1800.0, gt=0, description="Time limit of one analysis, in seconds")
    grace_s: float = Field(
        8.0,
        ge=0,
        description="A stopping worker has this many seconds to finish its job before it returns to the queue",
    )
    retry_first_s: float = Field(5.0, gt=0, description="Pause after the first failed delivery attempt, in seconds")
    retry_longest_s: float = Field(900.0, gt=0, description="Longest pause between two delivery attempts, in seconds")
    retry_for_s: float = Field(172_800.0, gt=0, description="A delivery fails after this many seconds of attempts")


class ArchiveSettings(BaseModel):
    """Disk use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    free_disk_mb: int = Field(
        2048, ge=0, description="Refuse instances (0xA700) when less disk space than this is free, in MB"
    )
    keep_days: float = Field(14.0, ge=0, description="Images are deleted this many days after their study is finished")
    keep_rows_days: float = Field(
        1825.0,
        ge=0,
        description="Findings, jobs and all other rows of a study are deleted this many days after its images",
    )
    keep_history_days: float = Field(
        1095.0, ge=0, description="The history of changes of state is deleted after this many days"
    )
    keep_quarantine_days: float = Field(
        90.0, ge=0, description="Objects in quarantine are deleted after this many days"
    )
    steady_clock_s: float = Field(
        86_400.0,
        ge=0,
        description="After the clock of the machine has jumped, nothing is deleted until it has run steadily for this "
        "long, in seconds",
    )


class ResultSettings(BaseModel):
    """Result objects."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_objects: bool = Field(
        False, description="Also send a Key Object Selection of the slices with microbleeds (DICOM KO)"
    )
    rejection_note: Literal["off", "data retention policy expired", "incorrect modality worklist entry"] = Field(
        "off",
        description="Also send a rejection note (IHE IOCM) of this title when a result replaces an earlier one, so "
        "that the PACS hides or deletes the earlier one: `off`, `data retention policy expired` or `incorrect "
        "modality worklist entry`",
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

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("cmb-node", appauthor=False), description="Folder of all data"
    )
    ae_title: AETitle = Field("CMBNODE", description="The node's own AE title")
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the ledger; none: SQLite in the data folder"
    )
    database_password: SecretStr | None = Field(None, description="Password for `database_url`, if it contains none")
    redis_url: SecretStr | None = Field(None, description="Redis URL; none: `cmbnode up` starts its own Redis")
    redis_password: SecretStr | None = Field(None, description="Password for `redis_url`, if it contains none")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device that networks run on: `auto`, `cpu` or `cuda`"
    )
    routing_file: Path | None = Field(None, description="TOML table of routing rules, replaces the one in the package")
    recognition_file: Path | None = Field(
        None, description="TOML table of your own recognition rules, read before those in the package"
    )
    time_zone: TimeZoneName | None = Field(
        None, description="Time zone of the times in results (`Europe/Berlin`); none: the host's"
    )
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines: `console` or `json`")
    destinations: dict[str, AnyDestination] = Field(
        default_factory=dict, description="Where results are sent; see the tables by kind below"
    )
    receiver: ReceiverSettings = ReceiverSettings()
    settling: SettlingSettings = SettlingSettings()
    queue: QueueSettings = QueueSettings()
    priors: PriorsSettings = PriorsSettings()
    pull: dict[SourceName, PullSettings] = Field(
        default_factory=dict, description="PACS that new studies are fetched from; see the table below"
    )
    change: ChangeSettings = ChangeSettings()
    results: ResultSettings = ResultSettings()
    notices: NoticeSettings = NoticeSettings()
    archive: ArchiveSettings = ArchiveSettings()
    worklist: WorklistSettings = WorklistSettings()
    dicomweb: DicomWebSettings = DicomWebSettings()
    qa: QaSettings = QaSettings()
    audit_repository: AuditRepositorySettings | None = None
    work_items: WorkItemSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _passwords_into_urls(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Complete the addresses of the database and of Redis, as their libraries want them."""
        given = dict(given)
        for url, password in (("database_url", "database_password"), ("redis_url", "redis_password")):
            if secret := given.pop(password, None):
                given[url] = with_password(given.get(url) or "", secret)
        return given

    @field_serializer("database_url", "redis_url", when_used="json-unless-none")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        return write_secret(secret, info)

    @model_validator(mode="after")
    def _pacs_may_send(self) -> Self:
        """What a PACS is asked for comes by C-STORE, unless it is asked by C-GET: it must be able to connect."""
        for where, pacs in self.sources.items():
            if (way := pacs.sends_to_receiver) is not None:
                self._check_may_send(where, way.host)
        return self

    def _check_may_send(self, where: str, host: str) -> None:
        if is_loopback(self.receiver.listen_host) and not is_loopback(host):
            listens = self.receiver.listen_host
            raise ConfigError(
                f"{host} is asked to send studies ({where}), but the receiver listens on {listens} only",
                where="receiver.host",
                do=f'{WHO_MAY_SEND}; or set {where}.dicom.retrieve = "c-get"',
            )
        with suppress(ValueError):  # a host name: its address is known only when it connects
            address = ip_address(host)
            if self.receiver.peers and not any(address in network for network in self.receiver.peers):
                raise ConfigError(
                    f"{address} is asked to send studies ({where}), but may not send any",
                    where="receiver.peers",
                    do=f"add the network of {where}.dicom.host",
                )

    @model_validator(mode="after")
    def _qa_destinations_exist(self) -> Self:
        if unknown := [name for name in self.qa.destinations if name not in self.destinations]:
            what = f"there is no destination {', '.join(map(repr, unknown))}"
            raise ConfigError(what, where="qa.destinations", do="name destinations of the settings, or none")
        return self

    @property
    def sources(self) -> dict[str, PacsSettings]:
        """Every PACS that studies are fetched from, by the settings that name it."""
        return {"priors": self.priors, **{f"pull.{name}": pull for name, pull in self.pull.items()}}

    @property
    def dicom_peers(self) -> dict[str, DicomPeerSettings]:
        """The DICOM nodes whose address the node knows, by AE title."""
        sources = [pacs.dicom for pacs in self.sources.values() if pacs.dicom is not None]
        destinations = [way for way in self.destinations.values() if isinstance(way, DicomDestination)]
        peers: list[DicomPeerSettings] = [*destinations, *sources, *self.receiver.commitment]
        return {peer.ae_title: peer for peer in peers}

    @property
    def expected_callers(self) -> list[str]:
        """AE titles of the systems that send what they are asked for, report on storage commitment, or request it."""
        destinations = [way for way in self.destinations.values() if isinstance(way, DicomDestination)]
        return [
            *(way.ae_title for pacs in self.sources.values() if (way := pacs.sends_to_receiver) is not None),
            *(way.commit_ae_title or way.ae_title for way in destinations if way.commit_within_s is not None),
            *(peer.ae_title for peer in self.receiver.commitment),
        ]

    @property
    def zone(self) -> ZoneInfo | None:
        """Time zone of the results; ``None`` is the host's."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'ledger.sqlite3'}"

    @property
    def broker_url(self) -> str | None:
        """URL of Redis; ``None`` if `cmbnode up` is to start its own."""
        return self.redis_url.get_secret_value() if self.redis_url is not None else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the base class's
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, environment, files with secrets, TOML file, defaults."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=secrets_folder(settings_cls.model_fields),
            secrets_prefix="",
            secrets_nested_delimiter="__",
        )
        return init_settings, env_settings, secrets, TomlConfigSettingsSource(settings_cls)


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
    check_variables(Settings)
    if config_file is not None and not config_file.is_file():
        raise ConfigError(
            "no such configuration file", where=str(config_file), do="name another, or write one with `cmbnode init`"
        )

    class _FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    try:
        return _FileSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise explain_mistake(error, Settings, config_file) from error
    except SettingsError as error:
        raise explain_source(error, Settings) from error
    except ValueError as error:  # the TOML itself
        raise ConfigError(f"not readable as TOML ({error})", where=str(config_file)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(config_file)) from error

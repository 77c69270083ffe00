"""Where may results go, and how? One class of settings per kind of destination.

A class names the module of :mod:`node.deliver` that sends, which is imported only then. A kind that is not defined here
is looked for in the module of :mod:`node.deliver` with the same name, so a new destination is one file there.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    SerializationInfo,
    SerializeAsAny,
    field_serializer,
    model_validator,
)

from .connections import AETitle, ConnectionSettings, DicomPeerSettings, OptionalTlsSettings, TlsSettings, bracketed

REPORT = "report"
"""Kind of the result file that systems get which take no DICOM (:mod:`node.deliver.report`)."""
REJECTION_NOTE = "rejection"
"""Kind of the result file that rejects an earlier result."""


def _url(value: str) -> str:
    """Check a base address: http or https, a host, no credentials, nothing after the path."""
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        broken = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        broken = True
    if broken or not url.isprintable() or " " in url:
        raise ValueError("write an address as https://pacs.hospital.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise ValueError("user name and password have settings of their own; they do not belong in the address")
    if parts.query or parts.fragment:
        raise ValueError("write the base address, without ? or #")
    return url


def check_token(value: SecretStr) -> SecretStr:
    """Check that a token fits a header; an error of the HTTP library would quote it."""
    if not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
        raise ValueError("a token consists of printable ASCII characters")
    return value


Url = Annotated[str, AfterValidator(_url)]
Word = Annotated[str, Field(max_length=180, pattern=r"^[^\x00-\x1f\x7f|^~\\&]*$")]
"""A short name inside an HL7 message: nothing that separates fields."""


def write_secret(secret: SecretStr, info: SerializationInfo) -> str:
    """Write a secret into JSON: in full for the node's own processes, which ask for it, else as asterisks."""
    return secret.get_secret_value() if (info.context or {}).get("secrets") else str(secret)


KINDS: dict[str, type[DestinationSettings]] = {}
"""The class of each kind of destination; the classes enter themselves."""


class DestinationSettings(ConnectionSettings):
    """What every destination has.

    Attributes
    ----------
    MODULE : str
        The module that sends: its function ``open_destination(settings, calling_ae_title)`` makes a
        :class:`node.deliver.base.Destination`.
    TAKES_DICOM : bool
        Whether DICOM objects are sent there; otherwise the report for systems that accept no DICOM.
    """

    MODULE: ClassVar[str]
    TAKES_DICOM: ClassVar[bool]

    kind: str

    def takes(self, kind: str) -> bool:
        """Whether result files of this kind are sent there."""
        return (kind != REPORT) is self.TAKES_DICOM

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Enter the class under its kind."""
        for kind in get_args(cls.model_fields["kind"].annotation):
            KINDS[kind] = cls


class WebService(TlsSettings):
    """An HTTP service and how the node signs in there."""

    url: Url = Field(description="Base address of the service, http or https")
    token: Annotated[SecretStr, AfterValidator(check_token)] | None = Field(
        None, description="Bearer token; preferably set in the environment"
    )
    username: str | None = Field(None, description="User name for HTTP Basic")
    password: SecretStr | None = Field(None, description="Password for HTTP Basic; preferably set in the environment")

    @field_serializer("token", "password", when_used="json-unless-none")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        return write_secret(secret, info)

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.token is not None and self.username is not None:
            raise ValueError("either a token or username and password, not both")
        return self

    @property
    def address(self) -> str:
        """The other system as an administrator would write it."""
        return self.url


class ObjectDestination(DestinationSettings):
    """What every destination of DICOM objects has."""

    TAKES_DICOM: ClassVar[bool] = True

    rejection_notes: bool = Field(
        True,
        description="Send rejection notes, if `results.rejection_note` is set; false: this PACS does not take them",
    )

    def takes(self, kind: str) -> bool:
        """Whether result files of this kind are sent there."""
        return super().takes(kind) and (self.rejection_notes or kind != REJECTION_NOTE)


class DicomDestination(DicomPeerSettings, ObjectDestination):
    """A DICOM storage SCP (C-STORE)."""

    MODULE: ClassVar[str] = "node.deliver.cstore"

    kind: Literal["dicom"] = Field("dicom", description="C-STORE; the default kind")
    commit_within_s: float | None = Field(
        None,
        gt=0,
        description="Request storage commitment, and expect it within this many seconds (`3600`); none: do not",
    )
    commit_ae_title: AETitle | None = Field(
        None, description="AE title of the storage commitment SCP; none: `ae_title`"
    )
    commit_host: str | None = Field(None, min_length=1, description="Its host name or address; none: `host`")
    commit_port: int | None = Field(None, ge=1, le=65535, description="Its DICOM port; none: `port`")


class StowDestination(WebService, ObjectDestination):
    """A DICOMweb service (STOW-RS)."""

    MODULE: ClassVar[str] = "node.deliver.stow"

    kind: Literal["stow"] = Field(description="DICOMweb, STOW-RS")


class Hl7Destination(OptionalTlsSettings, DestinationSettings):
    """A RIS or an integration engine (HL7 v2.5.1, ORU^R01 over MLLP)."""

    MODULE: ClassVar[str] = "node.deliver.mllp"
    TAKES_DICOM: ClassVar[bool] = False

    kind: Literal["hl7"] = Field(description="HL7 version 2 over MLLP")
    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(ge=1, le=65535, description="MLLP port")
    receiving_application: Word = Field("", description="MSH-5, the receiving application")
    receiving_facility: Word = Field("", description="MSH-6, the receiving facility")
    sending_application: Word = Field("CMBNODE", min_length=1, description="MSH-3, the node's name")
    sending_facility: Word = Field("", description="MSH-4, the site")
    assigning_authority: Word = Field(
        "", description="PID-3.4, the assigning authority of the Patient ID; none: Issuer of Patient ID of the images"
    )
    service: tuple[Word, Word, Word] = Field(
        ("CMB", "Cerebral microbleeds on SWI", "99CMB"),
        description="OBR-4, the service as the RIS knows it: code, text, coding system",
    )
    processing_id: Literal["P", "T", "D"] = Field(
        "P", description="MSH-11: `P` production, `T` training, `D` debugging"
    )

    @property
    def address(self) -> str:
        """The other system as an administrator would write it."""
        return f"{'mllps' if self.tls else 'mllp'}://{bracketed(self.host)}:{self.port}"


class FhirDestination(WebService, DestinationSettings):
    """A FHIR R4 server (DiagnosticReport and Observations, one transaction)."""

    MODULE: ClassVar[str] = "node.deliver.fhir"
    TAKES_DICOM: ClassVar[bool] = False

    kind: Literal["fhir"] = Field(description="FHIR R4")
    patient_system: str = Field(
        "urn:cmb-node:patient-id", min_length=1, pattern=r"^\S+$", description="System (URI) of the Patient ID"
    )
    accession_system: str = Field(
        "urn:cmb-node:accession-number", min_length=1, pattern=r"^\S+$", description="System (URI) of accession numbers"
    )
    find_patient: bool = Field(
        False, description="Refer to the server's own Patient with that ID, which must exist; false: use the ID alone"
    )


def _of_its_kind(value: Any) -> Any:
    """Validate a table by the class of its kind; one without a kind is of kind ``dicom``."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind", "dicom")
    if isinstance(kind, str) and kind.isidentifier() and kind not in KINDS and find_spec(f"node.deliver.{kind}"):
        import_module(f"node.deliver.{kind}")
    if kind not in KINDS:
        raise ValueError(f"unknown kind; it is one of {', '.join(sorted(KINDS))}")
    return KINDS[kind].model_validate(value)


AnyDestination = Annotated[SerializeAsAny[DestinationSettings], BeforeValidator(_of_its_kind)]
"""A destination of any kind."""

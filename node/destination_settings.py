"""Where may results go, and how? One class of settings a way; `kind` says which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    SerializationInfo,
    Tag,
    field_serializer,
    model_validator,
)

REPORT = "report"
"""Kind of the result file that systems get which take no DICOM (:mod:`node.report`)."""


def _ae_title(value: str) -> str:
    """Check an AE title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


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
        raise ValueError("user name and password have settings of their own; they do not belong into the address")
    if parts.query or parts.fragment:
        raise ValueError("write the base address, without ? or #")
    return url


def _file(value: Path) -> Path:
    """Check that a file is there now, not when the first result is to be sent."""
    if not value.is_file():
        raise ValueError(f"no such file: {value}")
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Url = Annotated[str, AfterValidator(_url)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
Word = Annotated[str, Field(max_length=180, pattern=r"^[^\x00-\x1f\x7f|^~\\&]*$")]
"""A short name inside an HL7 message: nothing that separates fields."""


class _Destination(BaseModel):
    """What every destination has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    TAKES_DICOM: ClassVar[bool]

    timeout_s: float = Field(30.0, gt=0, description="Longest wait for a connection or an answer, seconds")

    def takes(self, kind: str) -> bool:
        """Whether result files of this kind go there: DICOM objects, or the report for those who take no DICOM."""
        return (kind != REPORT) is self.TAKES_DICOM


class _Tls(_Destination):
    """Who is believed to be the far side, and as whom the node shows itself."""

    verify: bool = Field(True, description="Check the far side's certificate; false: believe anyone")
    ca_file: ExistingFile | None = Field(None, description="Certificates to trust (PEM); none: the system's")
    certificate: ExistingFile | None = Field(None, description="The node's own certificate (PEM), if asked for one")
    certificate_key: ExistingFile | None = Field(None, description="Its private key (PEM), if in a file of its own")

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.certificate_key is not None and self.certificate is None:
            raise ValueError("certificate_key without certificate: name both")
        return self


class WebService(_Tls):
    """An HTTP service and how the node signs in there."""

    url: Url = Field(description="Base address of the service, http or https")
    token: SecretStr | None = Field(None, description="Bearer token; better in the environment than in the file")
    username: str | None = Field(None, description="User name, to sign in by HTTP Basic")
    password: SecretStr | None = Field(None, description="Its password; better in the environment than in the file")

    @field_serializer("token", "password", when_used="json-unless-none")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        """Written out for the node's own processes only; anyone else gets asterisks."""
        return secret.get_secret_value() if (info.context or {}).get("secrets") else str(secret)

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.token is not None and self.username is not None:
            raise ValueError("either a token or username and password, not both")
        return self

    @property
    def address(self) -> str:
        """The far side, as an administrator would write it."""
        return self.url


class DicomDestination(_Destination):
    """A DICOM storage SCP (C-STORE)."""

    TAKES_DICOM: ClassVar[bool] = True

    kind: Literal["dicom"] = Field("dicom", description="C-STORE; the kind that need not be named")
    ae_title: AETitle = Field(description="AE title of the destination")
    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(ge=1, le=65535, description="DICOM port")

    @property
    def address(self) -> str:
        """The far side, as an administrator would write it."""
        return f"{self.ae_title}@{_bracketed(self.host)}:{self.port}"


class StowDestination(WebService):
    """A DICOMweb service (STOW-RS)."""

    TAKES_DICOM: ClassVar[bool] = True

    kind: Literal["stow"] = Field(description="DICOMweb, STOW-RS")


class Hl7Destination(_Tls):
    """A RIS or an integration engine (HL7 v2.5.1, ORU^R01 over MLLP)."""

    TAKES_DICOM: ClassVar[bool] = False

    kind: Literal["hl7"] = Field(description="HL7 version 2 over MLLP")
    host: str = Field(min_length=1, description="Host name or address")
    port: int = Field(ge=1, le=65535, description="MLLP port")
    tls: bool = Field(False, description="Whether MLLP runs inside TLS")
    receiving_application: Word = Field("", description="MSH-5, the far side's application")
    receiving_facility: Word = Field("", description="MSH-6, the far side's facility")
    sending_application: Word = Field("CMBNODE", min_length=1, description="MSH-3, the node's name")
    sending_facility: Word = Field("", description="MSH-4, the site")
    assigning_authority: Word = Field(
        "", description="PID-3.4: who gave the patient ID, as the RIS calls it; none: Issuer of Patient ID"
    )
    service: tuple[Word, Word, Word] = Field(
        ("CMB", "Cerebral microbleeds on SWI", "99CMB"),
        description="OBR-4, the service as the RIS knows it: code, text, coding system",
    )
    processing_id: Literal["P", "T", "D"] = Field("P", description="MSH-11: production, test or debugging")

    @property
    def address(self) -> str:
        """The far side, as an administrator would write it."""
        return f"{'mllps' if self.tls else 'mllp'}://{_bracketed(self.host)}:{self.port}"


class FhirDestination(WebService):
    """A FHIR R4 server (DiagnosticReport and Observations, one transaction)."""

    TAKES_DICOM: ClassVar[bool] = False

    kind: Literal["fhir"] = Field(description="FHIR R4")
    patient_system: str = Field(
        "urn:cmb-node:patient-id", min_length=1, pattern=r"^\S+$", description="System (URI) of the patient ID"
    )
    accession_system: str = Field(
        "urn:cmb-node:accession-number", min_length=1, pattern=r"^\S+$", description="System (URI) of accession numbers"
    )
    find_patient: bool = Field(
        False, description="Refer to the server's own Patient with that ID, which must exist; false: by the ID alone"
    )


def _kind(value: Any) -> str:
    """Which of the classes a table is meant for; existing configuration files name no kind."""
    kind = value.get("kind", "dicom") if isinstance(value, dict) else getattr(value, "kind", "dicom")
    return kind if isinstance(kind, str) else ""


KINDS = {"dicom": DicomDestination, "stow": StowDestination, "hl7": Hl7Destination, "fhir": FhirDestination}

DestinationSettings = Annotated[
    Annotated[DicomDestination, Tag("dicom")]
    | Annotated[StowDestination, Tag("stow")]
    | Annotated[Hl7Destination, Tag("hl7")]
    | Annotated[FhirDestination, Tag("fhir")],
    Discriminator(
        _kind,
        custom_error_type="destination_kind",
        custom_error_message='unknown kind; it is one of "dicom" (C-STORE), "stow", "hl7" or "fhir"',
    ),
]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

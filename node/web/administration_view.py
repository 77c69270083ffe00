"""What does an administrator see? Destinations and how they do, PACS that are queried, routing rules, and users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from node.ledger import DestinationRecord, Ledger, PullSource, PullState
from node.roles import UserRole
from node.route.rules import SHIPPED, RoutingRule, load_table
from node.settings import Settings
from node.settings.connections import ConnectionSettings
from node.settings.destinations import DestinationSettings
from node.tls.certificates import CertificateExpiry, certificate_expiries
from pipeline.errors import CmbError
from pipeline.findings import wording

_KINDS = {"dicom": "DICOM (C-STORE)", "stow": "DICOMweb (STOW-RS)", "hl7": "HL7 v2 (MLLP)", "fhir": "FHIR R4"}
_PATTERNS = ("manufacturer", "series_description", "study_description", "station", "institution")


@dataclass(frozen=True)
class DestinationLine:
    """One destination. `certificate` says when the first of its certificates expires; `failed` counts objects."""

    name: str
    kind: str
    address: str
    tls: str
    certificate: str
    state: str
    tone: str
    accepted_at: datetime | None
    failed_at: datetime | None
    failure: str
    waiting: int
    failed: int


@dataclass(frozen=True)
class PullLine:
    """One PACS that is queried for new studies; `found` counts those of the last answer, the others all known ones."""

    name: str
    kind: str
    address: str
    tls: str
    state: str
    tone: str
    queried_at: datetime | None
    found: int
    problem: str
    waiting: int
    fetched: int
    ignored: int
    failed: int


@dataclass(frozen=True)
class RuleLine:
    """One routing rule in words."""

    number: int
    name: str
    applies_to: str
    action: str
    decision: str
    why: str


@dataclass(frozen=True)
class RulesView:
    """The routing rules as the file has them now; `problem` says why it cannot be used."""

    file: str
    lines: tuple[RuleLine, ...]
    problem: str = ""


@dataclass(frozen=True)
class UserLine:
    """One user. `is_self`: the administrator who looks."""

    name: str
    display_name: str
    role: UserRole
    disabled: bool
    sessions: int
    created_at: datetime
    password_set_at: datetime
    is_self: bool


def destination_lines(settings: Settings, ledger: Ledger) -> tuple[DestinationLine, ...]:
    """Every destination of the settings, by name."""
    records = ledger.destination_records()
    expiries = certificate_expiries(settings)
    now = datetime.now(UTC)
    return tuple(
        _destination(name, way, records.get(name, DestinationRecord(name)), _first_expiry(name, expiries, now))
        for name, way in sorted(settings.destinations.items())
    )


def _destination(name: str, way: DestinationSettings, record: DestinationRecord, certificate: str) -> DestinationLine:
    state, tone = _state(record)
    return DestinationLine(
        name=name,
        kind=_KINDS.get(way.kind, way.kind),
        address=way.address,
        tls=_tls(way),
        certificate=certificate,
        state=state,
        tone=tone,
        accepted_at=record.accepted_at,
        failed_at=record.failed_at,
        failure=record.failure,
        waiting=record.waiting,
        failed=record.failed,
    )


def _state(record: DestinationRecord) -> tuple[str, str]:
    if record.failed_at is not None and (record.accepted_at is None or record.accepted_at < record.failed_at):
        return "Failing", "bad"
    return ("Accepting", "good") if record.accepted_at is not None else ("Nothing sent yet", "quiet")


def _tls(way: ConnectionSettings) -> str:
    """Whether TLS is used, as the address of a web service or a setting of its own says."""
    url: str = getattr(way, "url", "")
    return "TLS" if url.lower().startswith("https:") or getattr(way, "tls", False) else "no TLS"


def _first_expiry(name: str, expiries: list[CertificateExpiry], now: datetime) -> str:
    """When the first certificate of a destination expires; empty if it has none of its own."""
    own = [one for one in expiries if one.setting.rpartition(".")[0] == f"destinations.{name}"]
    if any(one.expires_at is None for one in own):
        return "a certificate cannot be read"
    first = min((one.expires_at for one in own if one.expires_at is not None), default=None)
    if first is None:
        return ""
    if first <= now:
        return "certificate has expired"
    days = (first - now).days
    return f"certificate expires in {days} {'day' if days == 1 else 'days'}"


def pull_lines(settings: Settings, ledger: Ledger) -> tuple[PullLine, ...]:
    """Every PACS that is queried for new studies, by name."""
    records, counts = ledger.pull_sources(), ledger.pull_counts()
    lines = []
    for name, pacs in sorted(settings.pull.items()):
        record = records.get(name)
        state, tone = ("Not queried yet", "quiet") if record is None else _query_state(record)
        way = pacs.dicom or pacs.dicomweb
        retrieval = f"C-FIND, {pacs.dicom.retrieve.upper()}" if pacs.dicom is not None else "QIDO-RS, WADO-RS"
        lines.append(
            PullLine(
                name=name,
                kind=retrieval,
                address=pacs.address,
                tls="" if way is None else _tls(way),
                state=state,
                tone=tone,
                queried_at=record.queried_at if record else None,
                found=record.found if record else 0,
                problem=(record.why or record.note) if record else "",
                waiting=sum(counts.get((name, one), 0) for one in (PullState.WAITING, PullState.FETCHING)),
                fetched=counts.get((name, PullState.FETCHED), 0),
                ignored=counts.get((name, PullState.IGNORED), 0),
                failed=counts.get((name, PullState.FAILED), 0),
            )
        )
    return tuple(lines)


def _query_state(record: PullSource) -> tuple[str, str]:
    if record.why:
        return "Failing", "bad"
    if record.queried_at is None:
        return "Not queried yet", "quiet"
    return ("Incomplete", "bad") if record.note else ("Answering", "good")


def rules_view(settings: Settings) -> RulesView:
    """The routing rules, or what is wrong with their file."""
    file = str(settings.routing_file) if settings.routing_file else f"{SHIPPED.name} of the package"
    try:
        table = load_table(settings)
    except CmbError as error:
        return RulesView(file, (), wording.sentence(str(error)) + ".")
    return RulesView(file, tuple(_rule(number, rule) for number, rule in enumerate(table.rule, start=1)))


def _rule(number: int, rule: RoutingRule) -> RuleLine:
    return RuleLine(
        number, rule.name, "; ".join(_conditions(rule)) or "every series", rule.action, _decision(rule), rule.why
    )


def _conditions(rule: RoutingRule) -> Iterator[str]:
    """The conditions of a rule; a series must meet all of them."""
    for name, values in (("role", rule.role), ("modality", rule.modality), ("calling AE title", rule.calling_ae)):
        if values:
            yield f"{name} {' or '.join(values)}"
    for field in _PATTERNS:
        if (pattern := getattr(rule, field)) is not None:
            yield f"{field.replace('_', ' ')} matches {pattern}"
    if rule.computed is not None:
        yield "the SWI is to be computed" if rule.computed else "the SWI was received"


def _decision(rule: RoutingRule) -> str:
    """What a rule decides besides its action."""
    if rule.action == "ignore":
        return ""
    to = "all destinations" if rule.destinations is None else ", ".join(rule.destinations) or "no destination"
    return f"profile {rule.profile}; priority {rule.priority or 'routine'}; to {to}"


def user_lines(ledger: Ledger, myself: str) -> tuple[UserLine, ...]:
    """Every account, by name."""
    return tuple(
        UserLine(
            name=one.name,
            display_name=one.display_name,
            role=one.role,
            disabled=one.disabled_at is not None,
            sessions=ledger.count_sessions(one.name),
            created_at=one.created_at,
            password_set_at=one.password_set_at,
            is_self=one.name == myself,
        )
        for one in ledger.accounts()
    )

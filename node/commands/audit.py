"""`cmbnode audit`: who looked at what, and who changed what."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import print_json, print_table

if TYPE_CHECKING:
    from node.ledger.access_records import AuditFilters

_DATES = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
SinceOption = Annotated[
    datetime | None,
    typer.Option(
        "--since", formats=_DATES, metavar="TIME", help="From this local time on: 2026-11-26 or '2026-11-26 14:05'."
    ),
]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", formats=_DATES, metavar="TIME", help="Before this local time.")
]


def audit(
    user: Annotated[str, typer.Option("--user", help="A user, or `os:NAME` for the command line.")] = "",
    action: Annotated[str, typer.Option("--action", help="An action, such as `looked at a study`.")] = "",
    study: Annotated[str, typer.Option("--study", metavar="STUDY_UID", help="Study Instance UID.")] = "",
    search: Annotated[
        str,
        typer.Option("--search", help="Part of patient, accession number, details or address."),
    ] = "",
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of entries.")] = 100,
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List who viewed what, who changed what, and who signed in. Each use of this command is recorded, too."""
    from node.ledger.access_records import AuditAction, AuditFilters
    from node.web.labels import clock, person_name

    filters = AuditFilters(
        user_name=user,
        action=action,
        study_uid=study,
        text=search,
        since=since.astimezone() if since else None,
        until=until.astimezone() if until else None,
    )
    with open_ledger(settings_of(data, config)) as ledger:
        entries = ledger.audit(filters, limit=limit)
        ledger.record_access(actor(), AuditAction.AUDIT, study, f"cmbnode audit {_options(filters)}".strip())
    if json:
        print_json({"audit": [_document(entry) for entry in entries]})
        return
    rows = [
        [
            clock(entry.at),
            entry.user_name,
            entry.action,
            person_name(entry.patient_name) if entry.study_instance_uid else "",
            entry.study_instance_uid,
            entry.detail,
            entry.address,
        ]
        for entry in entries
    ]
    print_table(["time", "user", "action", "patient", "study", "details", "address"], rows)


def _options(filters: AuditFilters) -> str:
    """The filters that were given, for the audit."""
    given = ((name, getattr(filters, name)) for name in filters.__dataclass_fields__)
    return ", ".join(f"{name} {value}" for name, value in given if value)


def _document(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from node.web.documents import iso

    return {**asdict(entry), "at": iso(entry.at)}

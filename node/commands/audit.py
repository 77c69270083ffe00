"""`cmbnode audit`: who looked at and changed what, as the ledger has it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from node.commands.options import ConfigOption, DataOption, JsonOption, open_ledger, settings_of
from node.commands.output import print_json, print_table

_DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
SinceOption = Annotated[datetime | None, typer.Option("--since", formats=_DATES, help="From then on, local time.")]
UntilOption = Annotated[datetime | None, typer.Option("--until", formats=_DATES, help="Before then.")]


def audit(
    user: Annotated[str, typer.Option("--user", help="Only what this user did.")] = "",
    action: Annotated[str, typer.Option("--action", help="Only this, such as `looked at a study`.")] = "",
    study: Annotated[str, typer.Option("--study", metavar="STUDY_UID", help="Only about this study.")] = "",
    search: Annotated[str, typer.Option("--search", help="Part of patient, accession, detail or address.")] = "",
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 100,
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List who looked and who changed, the newest first. Sign-ins and refusals too."""
    from node.ledger.access_records import AuditFilters
    from node.worklist.words import clock, person_name

    filters = AuditFilters(
        user_name=user,
        action=action,
        study_uid=study,
        text=search,
        since=since.astimezone() if since else None,
        until=until.astimezone() if until else None,
    )
    ledger = open_ledger(settings_of(data, config))
    try:
        entries = ledger.audit(filters, limit=limit)
    finally:
        ledger.close()
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
    print_table(["at", "user", "action", "patient", "study", "detail", "from"], rows)


def _document(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from node.worklist.documents import iso

    return {**asdict(entry), "at": iso(entry.at)}

"""`cmbnode pull`: which studies were found in a PACS that does not route, and what became of them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.text import printable
from pipeline.command_help import PlainCommand

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import CommandFailed, print_json, print_table

if TYPE_CHECKING:
    from node.ledger import Ledger, Pull
    from node.settings import Settings

pull = typer.Typer(
    help="Find new studies by query, and fetch them, where the PACS cannot route.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@pull.command("list", cls=PlainCommand)
def list_pulls(
    data: DataOption = None,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of studies.")] = 50,
    json: JsonOption = False,
) -> None:
    """List the PACS that are queried, and the studies found, newest first."""
    from node.ledger.access_records import AuditAction
    from node.web.labels import clock, dicom_date

    settings = settings_of(data, config)
    with open_ledger(settings) as ledger:
        ledger.record_access(actor(), AuditAction.LIST, detail=f"cmbnode pull list, limit {limit}")
        sources, studies = _sources(settings, ledger), ledger.pulls(limit=limit)
    if json:
        print_json({"sources": sources, "studies": [_study(one) for one in studies]})
        return
    columns = ["PACS", "address", "last query", "studies", "waiting", "failed", "next query", "reason"]
    rows = [
        [
            *(one["name"], one["address"], clock(one["queried_at"]), one["found"], one["waiting"], one["failed"]),
            *(clock(one["next_query_at"]), one["why"] or one["note"]),
        ]
        for one in sources
    ]
    print_table(columns, rows)
    if not sources:
        print("no PACS is queried: add [pull.NAME] to the settings")
    print()
    print_table(
        ["study", "PACS", "study date", "state", "images", "found", "attempts", "reason"],
        [
            [
                *(one.study_instance_uid, one.source, dicom_date(one.study_date), one.state),
                *(_images(one), clock(one.found_at), one.attempts, one.why),
            ]
            for one in studies
        ],
    )


@pull.command(cls=PlainCommand)
def retry(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Look at a study again that failed, was ignored or was fetched."""
    from node.ledger.access_records import AuditAction

    with open_ledger(settings_of(data, config)) as ledger:
        ledger.retry_pull(study, actor())
        ledger.record_access(actor(), AuditAction.RETRY, study, "pull")
    print(f"the running node will look at study {study} again")


@pull.command("try", cls=PlainCommand)
def try_source(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A PACS by its name in the settings.")],
    data: DataOption = None,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of studies to look at.")] = 20,
    json: JsonOption = False,
) -> None:
    """Query a PACS now, and say which studies would be fetched. Nothing is fetched or recorded."""
    from node.pull.dry_run import try_pull
    from node.retrieve.source import SourceError
    from node.web.labels import dicom_date
    from pipeline.errors import InputError

    settings = settings_of(data, config)
    if name not in settings.pull:
        known = ", ".join(sorted(settings.pull)) or "none"
        raise InputError(f"no such PACS in the settings; there is {known}", where=repr(name), do="see [pull.NAME]")
    try:
        tried = try_pull(settings, name, limit)
    except SourceError as error:
        raise CommandFailed(printable(str(error))) from error
    if json:
        print_json(tried.to_json())
        return
    print(f"{settings.pull[name].address}: {tried.found} studies{f'; {tried.note}' if tried.note else ''}")
    print_table(
        ["study", "study date", "images", "would be", "reason"],
        [[one.study_instance_uid, dicom_date(one.study_date), one.images, one.verdict, one.why] for one in tried.looks],
    )


def _sources(settings: Settings, ledger: Ledger) -> list[dict[str, Any]]:
    from node.ledger import PullState

    records, counts = ledger.pull_sources(), ledger.pull_counts()
    documents = []
    for name, pacs in settings.pull.items():
        record = records.get(name)
        documents.append(
            {
                "name": name,
                "address": pacs.address,
                "queried_at": record and record.queried_at,
                "next_query_at": record and record.next_query_at,
                "found": record.found if record else 0,
                "waiting": sum(counts.get((name, state), 0) for state in (PullState.WAITING, PullState.FETCHING)),
                "failed": counts.get((name, PullState.FAILED), 0),
                "why": record.why if record else "not queried yet",
                "note": record.note if record else "",
            }
        )
    return documents


def _study(one: Pull) -> dict[str, Any]:
    return {
        "study_instance_uid": one.study_instance_uid,
        "source": one.source,
        "study_date": one.study_date,
        "state": one.state,
        "why": one.why,
        "images": one.counts.completed + one.counts.warnings,
        "found_at": one.found_at,
        "ended_at": one.ended_at,
        "next_attempt_at": None if one.state.is_over else one.next_attempt_at,
        "attempts": one.attempts,
    }


def _images(one: Pull) -> object:
    return one.counts.completed + one.counts.warnings or ""

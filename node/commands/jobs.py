"""`cmbnode jobs`, `show` and `retry`: the node's work, as the ledger has it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.commands.options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from node.commands.output import print_json, print_table, printable

JobArgument = Annotated[int, typer.Argument(metavar="JOB", help="The number that `cmbnode jobs` shows.")]


def jobs(
    data: DataOption = None,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 50,
    json: JsonOption = False,
) -> None:
    """List the jobs, the newest first."""
    from node.worklist.documents import job_documents
    from node.worklist.words import clock, dicom_date, person_name

    ledger = open_ledger(settings_of(data, config))
    try:
        listed = ledger.jobs(limit=limit)
        documents = job_documents(ledger, listed)
    finally:
        ledger.close()
    if json:
        print_json({"jobs": documents})
        return
    rows = [
        [
            summary.job.id,
            summary.job.state,
            summary.job.priority.name,
            "" if summary.burden is None else summary.burden.total,
            person_name(summary.study.patient_name),
            dicom_date(summary.study.study_date),
            clock(summary.job.created_at),
            clock(summary.job.finished_at),
            document["why"],
        ]
        for summary, document in zip(listed, documents, strict=True)
    ]
    columns = ["job", "state", "priority", "bleeds", "patient", "study date", "opened", "finished", "why"]
    print_table(columns, rows)


def show(job: JobArgument, data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show one job. Its study, counts, deliveries with every answer, and history."""
    from node.worklist.documents import job_details

    ledger = open_ledger(settings_of(data, config))
    try:
        document = job_details(ledger, job)
    finally:
        ledger.close()
    if json:
        print_json(document)
    else:
        _print_details(document)


def retry(job: JobArgument, data: DataOption = None, config: ConfigOption = None) -> None:
    """Try a failed job again. From where it failed: the analysis, or the deliveries that were given up."""
    ledger = open_ledger(settings_of(data, config))
    try:
        again = ledger.retry(job, actor=actor())
    finally:
        ledger.close()
    print(f"job {job} is {again.state} again")


def reroute(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Look through a study again. After a change of the rules (and a restart of the node), without sending it again."""
    ledger = open_ledger(settings_of(data, config))
    try:
        ledger.route_again(study, actor=actor())
    finally:
        ledger.close()
    print(f"study {study} will be routed again by the running node")


def _print_details(document: dict[str, Any]) -> None:
    study, counts = document["study"], document["counts"]
    lines = {
        "job": f"{document['id']}, {document['state']}" + (f": {document['why']}" if document["why"] else ""),
        "study": f"{study['patient_name']} ({study['patient_id']}), {study['study_description']} {study['study_date']}",
        "study UID": study["study_instance_uid"],
        "profile": f"{document['profile']}, {document['priority']}, attempt {document['attempts']}",
        "microbleeds": "not analysed yet"
        if counts is None
        else f"{counts['total']}: {counts['definite']} definite, {counts['possible']} possible",
    }
    if study["for_comparison_only"]:
        lines["sent"] = "nowhere: fetched to compare a later study with"
    if earlier := document["earlier_studies"]:
        words = [earlier["state"], earlier["why"], "it came too late" if earlier["too_late"] else ""]
        lines["earlier"] = ": ".join(filter(None, words))
    for name, value in lines.items():
        print(f"{name:<12} {printable(value)}")
    for warning in document["warnings"] + ((document["findings"] or {}).get("quality", {}).get("warnings") or []):
        print(f"{'note':<12} {printable(warning)}")
    if document["deliveries"]:
        print()
        print_table(
            ["destination", "object", "state", "tries", "answer"],
            [[d["destination"], d["kind"], d["state"], d["attempts"], d["answer"]] for d in document["deliveries"]],
        )
    print()
    print_table(
        ["at", "from", "to", "by", "why"],
        [[c["at"], c["from"], c["to"], c["actor"], c["why"]] for c in document["history"]],
    )

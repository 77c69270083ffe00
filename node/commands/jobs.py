"""`cmbnode jobs`, `show`, `retry` and `reroute`: the node's jobs, as the ledger has them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.text import printable

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import print_json, print_table

JobArgument = Annotated[int, typer.Argument(metavar="JOB", help="Number of a job, as in `cmbnode jobs`.")]


def jobs(
    data: DataOption = None,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of jobs.")] = 50,
    json: JsonOption = False,
) -> None:
    """List the jobs, newest first."""
    from node.ledger.access_records import AuditAction
    from node.web.documents import job_documents
    from node.web.labels import clock, dicom_date, person_name

    with open_ledger(settings_of(data, config)) as ledger:
        ledger.record_access(actor(), AuditAction.LIST, detail=f"cmbnode jobs, limit {limit}")
        summaries = ledger.jobs(limit=limit)
        documents = job_documents(ledger, summaries)
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
        for summary, document in zip(summaries, documents, strict=True)
    ]
    columns = ["job", "state", "priority", "microbleeds", "patient", "study date", "created", "finished", "reason"]
    print_table(columns, rows)


def show(job: JobArgument, data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show a job with its study, counts, deliveries and history."""
    from node.ledger.access_records import AuditAction
    from node.web.documents import job_details

    with open_ledger(settings_of(data, config)) as ledger:
        document = job_details(ledger, job)
        uid = document["study"]["study_instance_uid"]
        ledger.record_access(actor(), AuditAction.STUDY, uid, f"cmbnode show, job {job}")
    if json:
        print_json(document)
    else:
        _print_details(document)


def retry(job: JobArgument, data: DataOption = None, config: ConfigOption = None) -> None:
    """Retry a failed job. If only deliveries failed, only these are retried."""
    from node.ledger.access_records import AuditAction

    with open_ledger(settings_of(data, config)) as ledger:
        again = ledger.retry(job, actor=actor())
        ledger.record_access(actor(), AuditAction.RETRY, again.study_instance_uid, f"job {job}")
    print(f"job {job} is {again.state} again")


def reroute(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Route a study again after the rules have changed. Restart the node first; do not send the study again."""
    from node.ledger.access_records import AuditAction

    with open_ledger(settings_of(data, config)) as ledger:
        ledger.route_again(study, actor=actor())
        ledger.record_access(actor(), AuditAction.REROUTE, study)
    print(f"the running node will route study {study} again")


def _print_details(document: dict[str, Any]) -> None:
    from node.web.labels import dicom_date, iso_clock, person_name
    from pipeline.findings import wording

    study, counts = document["study"], document["counts"]
    lines = {
        "job": f"{document['id']}, {document['state']}" + (f": {document['why']}" if document["why"] else ""),
        "patient": f"{person_name(study['patient_name'])} ({study['patient_id']})",
        "study": f"{study['study_description']}, {dicom_date(study['study_date'])}",
        "study UID": study["study_instance_uid"],
        "profile": f"{document['profile']}, {document['priority']}, attempt {document['attempts']}",
        "result": "not analysed yet" if counts is None else wording.count_line(counts["definite"], counts["possible"]),
    }
    if study["for_comparison_only"]:
        lines["sent to"] = "no destination: fetched only for comparison with a later study"
    if earlier := document["earlier_studies"]:
        words = [earlier["state"], earlier["why"], "arrived too late" if earlier["too_late"] else ""]
        lines["priors"] = ": ".join(filter(None, words))
    for name, value in lines.items():
        print(f"{name:<12} {printable(str(value))}")
    for warning in document["warnings"] + ((document["findings"] or {}).get("quality", {}).get("warnings") or []):
        print(f"{'note':<12} {printable(warning)}")
    if document["deliveries"]:
        print()
        print_table(
            ["destination", "object", "state", "attempts", "answer"],
            [[d["destination"], d["kind"], d["state"], d["attempts"], d["answer"]] for d in document["deliveries"]],
        )
    print()
    print_table(
        ["time", "from", "to", "by", "reason"],
        [[iso_clock(c["at"]), c["from"], c["to"], c["actor"], c["why"]] for c in document["history"]],
    )

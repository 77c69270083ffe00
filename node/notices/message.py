"""What does a notice say? The same facts as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from node.ledger import Notice, NoticedJob, NoticeMessage
from node.ledger.notices import FAILED, STAT
from node.settings import Settings
from node.text import one_line

MOST = 20
"""Notices of one kind that are written out; the others are counted."""
SCHEMA = "cmb-notice/1"
_NOUNS = {
    STAT: ("STAT result", "STAT results"),
    FAILED: ("failed job", "failed jobs"),
    "destination": ("destination down", "destinations down"),
    "disk": ("disk warning", "disk warnings"),
    "certificate": ("certificate warning", "certificate warnings"),
    "qa": ("QA alarm", "QA alarms"),
}
_OVER = {
    "destination": "{} accepts results again, or nothing waits for it any more",
    "disk": "{}: there is room again",
    "certificate": "{}: the certificate was renewed, or is no longer used",
    "qa": "{}: the last run was good",
}
"""What is said when a condition is over."""


@dataclass(frozen=True)
class Message:
    """A message as it is sent.

    Parameters
    ----------
    id : str
        Stays the same when it is sent again.
    """

    id: str
    subject: str
    text: str
    document: dict[str, Any]

    def to_json(self) -> bytes:
        """The document as it is signed and sent."""
        return json.dumps(self.document, ensure_ascii=False).encode()


def write_message(message: NoticeMessage, settings: Settings) -> Message:
    """Write a message, with what the settings allow it to say about patients."""
    items, left_out, seen = [], 0, Counter[tuple[str, bool]]()
    for notice in message.notices:
        kind = (notice.kind, notice.is_over)
        seen[kind] += 1
        if seen[kind] <= MOST:
            items.append(_item(notice, settings))
        else:
            left_out += 1
    title = "; ".join(_headline(kind, is_over, number) for (kind, is_over), number in seen.items())
    lines = [f"{item['at']}  {item['text']}" + (f"\n    {item['url']}" if "url" in item else "") for item in items]
    if left_out:
        lines.append(f"and {left_out} more; `cmbnode jobs` and the worklist show all of them")
    document = {
        "schema": SCHEMA,
        "id": message.id,
        "node": settings.ae_title,
        "title": title,
        "number": len(message.notices),
        "left_out": left_out,
        "notices": items,
    }
    subject = f"[{settings.ae_title}] {one_line(title)}"
    return Message(message.id, subject, "\n".join(lines), document)


def _headline(kind: str, is_over: bool, number: int) -> str:
    one, many = _NOUNS.get(kind, (kind, kind))
    words = f"{number} {one if number == 1 else many}"
    return f"{words} (over)" if is_over else words


def _item(notice: Notice, settings: Settings) -> dict[str, Any]:
    at = notice.at.astimezone(settings.zone).isoformat(timespec="seconds")
    item: dict[str, Any] = {"kind": notice.kind, "at": at, "over": notice.is_over}
    if notice.kind not in (STAT, FAILED):
        text = _OVER[notice.kind].format(notice.subject) if notice.is_over else notice.detail
        return {**item, "subject": notice.subject, "text": one_line(text)}
    item["job"] = int(notice.subject)
    if notice.job is None:
        return {**item, "text": f"job {notice.subject}: its study was erased"}
    return {**item, **_about_job(notice, notice.job, settings)}


def _about_job(notice: Notice, job: NoticedJob, settings: Settings) -> dict[str, Any]:
    say = settings.notices.identify_by
    item: dict[str, Any] = {"study_instance_uid": job.study_instance_uid}
    whom = f"study {job.study_instance_uid}"
    if say != "study":
        item["accession_number"] = job.accession_number
        whom = f"accession number {job.accession_number}" if job.accession_number else whom
    if say == "patient":
        item |= {"patient_name": job.patient_name, "patient_id": job.patient_id}
        whom = f"{job.patient_name} ({job.patient_id}), {whom}"
    if notice.kind == STAT:
        item["microbleeds"] = {"total": job.total, "definite": job.definite, "possible": job.possible}
        text = f"STAT result, job {job.id}, {whom}: {_counts(job)}"
    else:
        item["step"] = notice.detail
        # What another system answered may quote the patient.
        why = f": {job.why}" if job.why and (say == "patient" or notice.detail == "analysis") else ""
        text = f"{notice.detail} failed, job {job.id}, {whom}{why}"
    if settings.worklist.url:
        item["url"] = f"{settings.worklist.url.rstrip('/')}/studies/{job.study_instance_uid}"
    return {"text": one_line(text), **item}


def _counts(job: NoticedJob) -> str:
    if not job.total:
        return "no microbleeds"
    noun = "microbleed" if job.total == 1 else "microbleeds"
    return f"{job.total} {noun} ({job.definite} definite, {job.possible} possible)"

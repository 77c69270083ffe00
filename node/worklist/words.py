"""How does the ledger's language become a reader's? Names, dates and states in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from node.ledger.records import Change, DeliveryState, Job, Priority, SeriesState, StudyState

ABSENT = "—"

_STATES = {
    StudyState.RECEIVING: ("Receiving images", "moving"),
    StudyState.HELD: ("Waiting for an earlier study", "waiting"),
    StudyState.IGNORED: ("Not analysed", "quiet"),
    StudyState.QUEUED: ("Waiting for analysis", "waiting"),
    StudyState.RUNNING: ("Analysing", "moving"),
    StudyState.ANALYSED: ("Analysed, not sent yet", "moving"),
    StudyState.DELIVERING: ("Sending results", "moving"),
    StudyState.DELIVERED: ("Results delivered", "good"),
    StudyState.FAILED: ("Failed", "bad"),
    StudyState.SUPERSEDED: ("Superseded", "quiet"),
}
_SERIES = {
    SeriesState.RECEIVING: ("Receiving", "moving"),
    SeriesState.SETTLED: ("Used", "good"),
    SeriesState.IGNORED: ("Not used", "quiet"),
}
_DELIVERIES = {
    DeliveryState.WAITING: ("Waiting", "waiting"),
    DeliveryState.SENDING: ("Sending", "moving"),
    DeliveryState.ACCEPTED: ("Accepted", "good"),
    DeliveryState.FAILED: ("Given up", "bad"),
    DeliveryState.CANCELLED: ("Cancelled", "quiet"),
}
_ROLES = {
    "swi": "SWI",
    "phase": "phase",
    "magnitude": "magnitude",
    "mip": "mIP (never analysed)",
    "mixed_complex": "magnitude and phase mixed",
    "t2star": "T2*",
    "other": "other",
    "": ABSENT,
}
_JOB_STEPS = {
    "queued": "waits for analysis",
    "running": "analysis started",
    "analysed": "analysed",
    "delivering": "results on their way",
    "delivered": "everything accepted",
}
_PRIORS = {
    "waiting": "to be asked for",
    "asked": "asked for",
    "fetched": "here",
    "none": "none",
    "failed": "not to be had",
}
_KINDS = {"sr": "Structured report", "seg": "Segmentation", "capture": "Picture", "report": "Findings (RIS)"}


def state_words(state: StudyState, job: Job | None) -> str:
    """Say where a study is on its way."""
    words = _STATES[state][0]
    if state is StudyState.DELIVERED and job is not None and not job.destinations:
        return "Analysed; no destination set"
    if job is not None and job.correction is not None and state in (StudyState.QUEUED, StudyState.RUNNING):
        return "Writing the correction" if state is StudyState.RUNNING else "Correction waits to be written"
    if state is StudyState.QUEUED and job is not None and job.attempts:
        return f"{words} again (attempt {job.attempts + 1})"
    if state is StudyState.RUNNING and job is not None and job.progress:
        return f"{words}: {job.progress}"
    return words


def state_tone(state: StudyState) -> str:
    """Tone of a state: good, bad, moving, waiting or quiet; the style sheet gives it a colour."""
    return _STATES[state][1]


def series_words(state: SeriesState) -> tuple[str, str]:
    """Words and tone for the state of a series."""
    return _SERIES[state]


def delivery_words(state: DeliveryState) -> tuple[str, str]:
    """Words and tone for the state of a delivery."""
    return _DELIVERIES[state]


def role_words(role: str) -> str:
    """What a series is taken for."""
    return _ROLES.get(role, role)


def kind_words(kind: str) -> str:
    """What a result object is."""
    return _KINDS.get(kind, kind)


def priority_words(priority: Priority) -> str:
    """The priority as radiology says it."""
    return "STAT" if priority is Priority.STAT else priority.name.capitalize()


def person_name(value: str) -> str:
    """Write a DICOM person name (PS3.5 6.2, VR PN) as people do: ``Doe^Jane`` becomes ``Doe, Jane``."""
    groups = [_name_group(group) for group in value.split("=")[:2]]
    groups = [group for group in groups if group]
    if not groups:
        return ABSENT
    return groups[0] if len(groups) == 1 else f"{groups[0]} ({groups[1]})"


def _name_group(group: str) -> str:
    family, *given = [part.strip() for part in group.split("^")]
    rest = " ".join(filter(None, given))
    return ", ".join(filter(None, (family, rest)))


def dicom_date(value: str) -> str:
    """Write a DICOM date (``20261121``) as ``2026-11-21``; anything else as it is."""
    text = value.strip()
    if len(text) == 8 and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text or ABSENT


def clock(value: datetime | None, to: Literal["second", "minute"] = "second", now: datetime | None = None) -> str:
    """Write a time in the server's zone: the hour today, date and hour before that."""
    if value is None:
        return ABSENT
    local = value.astimezone()
    if local.date() != (now or datetime.now(UTC)).astimezone().date():
        return local.strftime("%Y-%m-%d %H:%M")
    return local.strftime("%H:%M:%S" if to == "second" else "%H:%M")


def change_words(change: Change, series_names: Mapping[str, str]) -> str:
    """Say what a change of state was."""
    if change.entity == "series":
        words = {"receiving": "arriving", "settled": "complete", "ignored": "not used"}.get(
            change.to_state, change.to_state
        )
        return f"Series {series_names.get(change.entity_id, change.entity_id)}: {words}"
    if change.entity == "job":
        return f"Job {change.entity_id}: {_JOB_STEPS.get(change.to_state, change.to_state)}"
    if change.entity == "prior":
        return f"Earlier studies: {_PRIORS.get(change.to_state, change.to_state)}"
    if change.entity == "study":
        return "Study looked through" if change.to_state.startswith("routed") else f"Study: {change.to_state}"
    return f"{change.entity.capitalize()} {change.entity_id}: {change.to_state}"


def duration(seconds: float | None) -> str:
    """Write a span: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def burden_words(burden: str) -> str:
    """Class of burden as it is usually reported: none, 1–4, 5–9, 10 or more."""
    return {"0": "none", "1-4": "1–4", "5-9": "5–9", ">=10": "≥ 10"}.get(burden, ABSENT)


def pattern_words(pattern: str | None) -> str:
    """Say where bleeds lie as a whole; a pattern, not a diagnosis."""
    known = {"none": "", "strictly deep": "strictly deep or infratentorial", "mixed": "mixed: lobar and deep"}
    return "pattern not assessed" if pattern is None else known.get(pattern, pattern)


def place_words(lesion: Mapping[str, Any]) -> str:
    """Say where a bleed lies: ``left frontal (lobar)``."""
    region, location, side = (lesion.get(name) or "" for name in ("region", "location", "side"))
    if not region and not location:
        return "not assessed"
    fuller = {"white matter": "deep white matter"}.get(location, location)
    text = " ".join(filter(None, (side, fuller or region)))
    return f"{text} (lobar)" if location and region == "lobar" else text


def sentence(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def iso_clock(value: str) -> str:
    """Write a time given in ISO 8601 with its date, in the server's zone."""
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")

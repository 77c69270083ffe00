"""With which earlier study is a study compared, and how does a worker get at what it needs for that?

Chosen when the job is opened, and written on it: the latest analysed earlier study of the same patient. Its key and the
settings of the comparison are part of the job's own key, so a job done again compares with the same result, and a study
that is routed again after its earlier study was corrected gets a new job. Nothing is done again by itself for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import structlog

from node.archive import Archive
from node.change_settings import ChangeSettings
from node.ledger import Job, Ledger, Study
from pipeline.errors import InputError
from pipeline.identity import derive_uid
from pipeline.parameters import ChangeParameters

if TYPE_CHECKING:
    from pipeline.change import Prior, Reference
    from pipeline.detect import Detection, Stopwatch

REFERENCE = "reference.npz"
"""The file in an outbox that a later study is laid on; it is kept as long as the findings."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Choice:
    """The analysis to compare with, if there is one, and what the reader of the result should know about that."""

    job: Job | None = None
    notes: tuple[str, ...] = ()

    def part_of_key(self, settings: ChangeSettings) -> dict[str, object]:
        """What of the comparison a job's key is made of."""
        return part_of_key(self.job.key if self.job else None, settings.parameters)


def part_of_key(prior_key: str | None, parameters: ChangeParameters) -> dict[str, object]:
    """What a job's key is made of besides images and profile, if it is compared with the job of `prior_key`."""
    return {} if prior_key is None else {"prior": prior_key, "change": parameters.model_dump(mode="json")}


def choose(ledger: Ledger, study: Study, settings: ChangeSettings) -> Choice:
    """Choose the latest earlier study of the same patient that was analysed.

    The ledger tells the patient by ID, issuer and birth date (:mod:`node.ledger.patients`); name and sex must not speak
    against it either, for an ID can be of somebody else in another hospital.
    """
    if not settings.enabled or study.fetched:
        return Choice()
    notes: list[str] = []
    for job in ledger.prior_jobs(study.study_instance_uid):
        earlier = ledger.study(job.study_instance_uid)
        if _days_between(earlier, study) < settings.min_days:
            continue
        if why := _contradiction(earlier, study):
            notes.append(f"not compared with the study of {_day(earlier)}: the same patient ID, but {why}")
            continue
        if not _confirmed(earlier, study):
            notes.append(
                f"compared with the study of {_day(earlier)} by patient ID alone: no name or birth date agrees"
            )
        return Choice(job, tuple(notes))
    return Choice(None, tuple(notes))


def _days_between(earlier: Study, later: Study) -> int:
    try:
        return (date.fromisoformat(later.study_date) - date.fromisoformat(earlier.study_date)).days
    except ValueError:
        return -1


def _day(study: Study) -> str:
    return date.fromisoformat(study.study_date).isoformat()


def _contradiction(one: Study, other: Study) -> str:
    ours, theirs = _name_parts(one.patient_name), _name_parts(other.patient_name)
    if ours and theirs and not ours & theirs:
        return "another name"
    if {one.patient_sex, other.patient_sex} == {"M", "F"}:
        return "another sex"
    return ""


def _confirmed(one: Study, other: Study) -> bool:
    same_day = bool(one.patient_birth_date) and one.patient_birth_date == other.patient_birth_date
    return same_day or bool(_name_parts(one.patient_name) & _name_parts(other.patient_name))


def _name_parts(name: str) -> set[str]:
    """Family and given names in every script (PS3.5 6.2.1): people marry, so one of them in common is enough."""
    parts = (part for group in name.split("=") for part in group.split("^")[:2])
    return {" ".join(part.casefold().split()) for part in parts} - {""}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a worker needs to compare the result of a job with an earlier one.

    Parameters
    ----------
    prior : Prior or None
        The earlier study; none: there is none, and only the job's own reference image is made.
    prior_key : str or None
        Key of its analysis.
    own : bytes or None
        The job's own reference image, where it was made before.
    """

    parameters: ChangeParameters
    prior: Prior | None = None
    prior_key: str | None = None
    own: bytes | None = None

    @property
    def part_of_key(self) -> dict[str, object]:
        """See :func:`part_of_key`."""
        return part_of_key(self.prior_key, self.parameters)

    def apply(self, detection: Detection, watch: Stopwatch) -> tuple[Detection, dict[str, bytes]]:
        """Compare; also what is to be kept in the outbox. A result is worth more than a comparison that fails."""
        from pipeline.change import Reference, compare, make_reference, not_compared

        reference = None
        with watch("change over time"):
            try:
                if self.own is not None:
                    reference = Reference.from_bytes(self.own)
                elif detection.brain is not None:
                    reference = make_reference(detection.acquisition, detection.brain)
                if self.prior is not None:
                    detection = compare(detection, self.prior, self.parameters, reference)
            except Exception as error:
                _log.exception("the comparison with an earlier study failed")
                if self.prior is not None:
                    detection = not_compared(detection, self.prior, f"it failed ({type(error).__name__})")
        findings = replace(detection.findings, timing_s={**detection.findings.timing_s, **watch.seconds})
        kept = {} if reference is None else {REFERENCE: reference.to_bytes()}
        return replace(detection, findings=findings), kept


def prepare(ledger: Ledger, archive: Archive, job: Job, settings: ChangeSettings) -> Comparison:
    """Get what a job is compared with from the ledger and the outbox."""
    own = None
    if job.correction is not None:
        own = _reference_bytes(archive, ledger.corrected(job.id))
    if job.prior_job_id is None:
        return Comparison(settings.parameters, own=own)
    prior = ledger.job(job.prior_job_id)
    return Comparison(settings.parameters, _prior(ledger, archive, prior), prior.key, own)


def _prior(ledger: Ledger, archive: Archive, job: Job) -> Prior:
    from pipeline.change import Prior, Reference
    from pipeline.documents import read_findings

    study = ledger.study(job.study_instance_uid)
    findings = read_findings(ledger.findings(job.id) or {})
    reference: Reference | None = None
    why = "the earlier study was analysed without keeping a reference image; analyse it again"
    packed = _reference_bytes(archive, [job, *ledger.corrected(job.id)])
    if packed is not None:
        try:
            reference, why = Reference.from_bytes(packed), ""
        except InputError as error:
            why = f"the earlier study's reference image: {error}"
    report = derive_uid(job.key, "sr", "instance")
    # A report for the RIS alone leaves no object in any PACS to refer to.
    sent = any(delivery.result.sop_instance_uid == report for delivery in ledger.deliveries(job.id))
    return Prior(
        findings,
        reference,
        job.study_instance_uid,
        study.study_date,
        sr_sop_instance_uid=report if sent else None,
        sr_series_instance_uid=derive_uid(job.key, "sr", "series") if sent else None,
        why=why,
    )


def _reference_bytes(archive: Archive, jobs: list[Job]) -> bytes | None:
    """The reference image of the first of these jobs that has one; all are of the same images."""
    for job in jobs:
        path = archive.path(f"outbox/{job.id}/{REFERENCE}")
        if path.is_file():
            return path.read_bytes()
    return None

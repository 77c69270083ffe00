"""With which earlier study is a study compared?

The prior is the latest analysed earlier study of the same patient. It is chosen when the job is opened. Its key and the
settings of the comparison are part of the job's key, so a job that is analysed again is compared with the same result,
and a study that is routed again after its prior was corrected gets a new job. A correction of a prior alone starts no
new analysis.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from node.ledger import Job, Ledger, StudyRecord
from node.ledger.patient_matching import contradiction, is_confirmed
from node.settings.change import ChangeSettings

from .comparison import part_of_key


@dataclass(frozen=True)
class PriorChoice:
    """The analysis to compare with, if there is one, and notes on it for the reader."""

    job: Job | None = None
    notes: tuple[str, ...] = ()

    def part_of_key(self, settings: ChangeSettings) -> dict[str, object]:
        """What the comparison adds to a job's key."""
        return part_of_key(self.job.key if self.job else None, settings.parameters)


def choose(ledger: Ledger, study: StudyRecord, settings: ChangeSettings) -> PriorChoice:
    """Choose the latest earlier study of the same patient that was analysed.

    Who is the same patient is decided in :mod:`node.ledger.patient_matching`.
    """
    if not settings.enabled or study.fetched or study.is_phantom:
        return PriorChoice()
    notes: list[str] = []
    for job in ledger.prior_jobs(study.study_instance_uid):
        earlier = ledger.study(job.study_instance_uid)
        if _days_between(earlier, study) < settings.min_days:
            continue
        if why := contradiction(study, earlier):
            notes.append(f"not compared with the study of {_day(earlier)}: {why}")
            continue
        if not is_confirmed(earlier, study):
            notes.append(
                f"compared with the study of {_day(earlier)} by patient ID alone: neither name nor birth date agrees"
            )
        return PriorChoice(job, tuple(notes))
    return PriorChoice(None, tuple(notes))


def _days_between(earlier: StudyRecord, later: StudyRecord) -> int:
    try:
        return (date.fromisoformat(later.study_date) - date.fromisoformat(earlier.study_date)).days
    except ValueError:
        return -1


def _day(study: StudyRecord) -> str:
    return date.fromisoformat(study.study_date).isoformat()

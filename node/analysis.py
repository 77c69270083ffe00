"""What does one analysis do? Claim the job, run the pipeline, commit findings and result objects in one step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import structlog

from node.archive import Archive
from node.comparison import Comparison
from node.config import QueueSettings
from node.lease import Heartbeat
from node.ledger import Job, JobState, Ledger, ResultFile
from node.report import Reports
from pipeline.errors import InputError, ProfileError
from pipeline.parameters import ChangeParameters

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.findings import Findings
    from pipeline.pairing import Pick
    from pipeline.profile import Profile
    from pipeline.recognition import Rules
    from pipeline.results import ResultObject

_log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
"""Hears the name of each stage."""


class Outcome(NamedTuple):
    """Findings, their DICOM objects, and what else is kept in the outbox, by the name of its file."""

    findings: Findings
    objects: tuple[ResultObject, ...]
    kept: Mapping[str, bytes] = MappingProxyType({})


Work = Callable[[Job, list[Path], Progress], Outcome]
"""From a job, its images and a listener to the outcome."""


class LeaseLostError(Exception):
    """The job belongs to somebody else now; what was computed is of no use."""


@dataclass(frozen=True)
class Analyst:
    """Analyses jobs.

    Parameters
    ----------
    owner : str
        Who it is, in the ledger's leases.
    work : callable
        Runs the pipeline; :func:`run_pipeline` with its device.
    reports : Reports
        Which destination takes what.
    """

    ledger: Ledger
    archive: Archive
    queue: QueueSettings
    owner: str
    work: Work
    reports: Reports = field(default_factory=Reports)

    def analyse(self, job_id: int) -> Job | None:
        """Analyse a job, unless it is not there to be taken; returns it as it is afterwards.

        Input or a profile that cannot be used fails the job at once; any other error counts as an attempt.
        """
        job = self.ledger.claim_job(job_id, self.owner, self.queue.lease_s)
        if job is None:
            _log.info("nothing to do: the job is taken, done or held back", job=job_id)
            return None
        _log.info("analysis starts", job=job_id, attempt=job.attempts, profile=job.profile)
        lease_s = self.queue.lease_s
        with Heartbeat(lambda: self.ledger.heartbeat(job_id, self.owner, lease_s), lease_s) as heartbeat:
            try:
                self._analyse(job, heartbeat)
            except LeaseLostError:
                _log.warning("the result is discarded: the job belongs to somebody else now", job=job_id)
            except (InputError, ProfileError) as error:
                self._fail(job, str(error), permanent=True)
            except Exception as error:
                _log.exception("analysis failed", job=job_id)
                self._fail(job, f"{type(error).__name__}: {error}", permanent=False)
        return self.ledger.job(job_id)

    def _analyse(self, job: Job, heartbeat: Heartbeat) -> None:
        def progress(stage: str) -> None:
            if heartbeat.lost or not self.ledger.heartbeat(job.id, self.owner, self.queue.lease_s, stage):
                raise LeaseLostError

        paths = [self.archive.path(relative) for relative in self.ledger.job_paths(job.id)]
        findings, objects, kept = Outcome(*self.work(job, paths, progress))
        progress("writing the results")
        for name, content in kept.items():
            self.archive.put(job.id, name, content)
        files, document = self._write(job, objects), findings.to_json()
        outbox, root = self.archive.outbox(job.id), self.archive.root
        files += self.reports.write(self.ledger, job, document, files, outbox, root)
        if not self.ledger.finish_analysis(job.id, self.owner, document, files, self.reports.takes):
            raise LeaseLostError
        _log.info("analysis done", job=job.id, **findings.counts)

    def _write(self, job: Job, objects: tuple[ResultObject, ...]) -> list[ResultFile]:
        """Put the objects into the job's outbox, each file whole or not at all."""
        from pipeline.results import write_results

        written = write_results(objects, self.archive.outbox(job.id))
        return [
            ResultFile(
                kind=item.kind,
                sop_instance_uid=str(item.dataset.SOPInstanceUID),
                sop_class_uid=str(item.dataset.SOPClassUID),
                path=written[item.kind].relative_to(self.archive.root).as_posix(),
                size=written[item.kind].stat().st_size,
                sha256=hashlib.sha256(written[item.kind].read_bytes()).hexdigest(),
            )
            for item in objects
        ]

    def _fail(self, job: Job, why: str, *, permanent: bool) -> None:
        state = self.ledger.fail_attempt(job.id, self.owner, why, self.queue.max_attempts, permanent)
        if state == JobState.FAILED:
            _log.error("the job is failed", job=job.id, why=why)


def run_pipeline(
    job: Job,
    paths: list[Path],
    progress: Progress,
    device: str,
    created: datetime,
    predecessor: str | None = None,
    rules: Rules | None = None,
    comparison: Comparison | None = None,
    key_objects: bool = False,
) -> Outcome:
    """Analyse the images of a job.

    The UIDs come from what is analysed and with which profile, the time from `created`, the job's own: a
    second analysis makes the same objects, byte for byte, under the same UIDs. `predecessor` is the key of the job
    whose report this one replaces, `rules` are those the job was routed by (by default those in the package),
    `comparison` is what it is compared with (by default nothing); with `key_objects` the slices with bleeds are named
    in an object of their own.

    Raises
    ------
    InputError
        If the series of the job are not among the images, or cannot be used.
    """
    from pipeline.detect import Stopwatch, detect
    from pipeline.profile import load_profile
    from pipeline.results import make_results

    profile = load_profile(job.profile)
    chosen = find_images(job, paths, profile, rules)
    comparison = comparison or Comparison(ChangeParameters())
    key = chosen.key(profile.digest, comparison.part_of_key)
    if key != job.key:
        _log.warning("images, rules or profile are not what they were when the job was opened", job=job.id)
    detection = detect(chosen, profile, key=key, device=device, progress=progress)
    warnings = tuple(dict.fromkeys((*job.warnings, *detection.findings.warnings)))
    detection = replace(detection, findings=replace(detection.findings, warnings=warnings))
    detection, kept = comparison.apply(detection, Stopwatch(progress))
    objects = make_results(detection, key=key, created=created, predecessor=predecessor, key_objects=key_objects)
    return Outcome(detection.findings, objects, {**draw(detection, job.id), **kept})


def find_images(job: Job, paths: list[Path], profile: Profile, rules: Rules | None = None) -> Pick:
    """Find the series of a job among its images.

    Raises
    ------
    InputError
        If they are not there.
    """
    from pipeline.study import pick, read_studies

    studies, unreadable = read_studies(paths, rules)
    study = next((s for s in studies if s.study_instance_uid == job.study_instance_uid), None)
    chosen = pick(study, t2star=profile.suits.t2star) if study is not None else None
    if chosen is None or not chosen.analysable or _swi_uid(chosen) != job.swi_series_uid:
        broken = f"; {len(unreadable)} files cannot be read: {unreadable[0].why}" if unreadable else ""
        raise InputError(f"its SWI series is not in the archive any more{broken}", where=f"job {job.id}")
    return chosen


def draw(detection: Detection, job_id: int) -> Mapping[str, bytes]:
    """Draw the pictures for the study page. A result is worth more than they are: it is sent without them too."""
    from pipeline.pictures import make_pictures

    try:
        return make_pictures(detection)
    except Exception:
        _log.exception("the pictures for the study page could not be drawn", job=job_id)
        return {}


def _swi_uid(chosen: Pick) -> str | None:
    return None if chosen.swi is None else chosen.swi.series_instance_uid

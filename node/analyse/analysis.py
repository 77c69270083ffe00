"""What does one analysis do? It claims the job, runs the pipeline, and commits findings and results in one step."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from node.archive import Archive, DamagedFileError, OutOfResourcesError
from node.deliver.report import ReportStore
from node.leases import Heartbeat
from node.ledger import Job, JobState, Ledger, ResultFile
from node.logs import explain
from node.retry import pause_s
from node.settings import QueueSettings
from pipeline.errors import InputError, ProfileError
from pipeline.parameters import ChangeParameters

from .comparison import Comparison

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.findings import Findings
    from pipeline.profile import Profile
    from pipeline.read.pairing import SeriesSelection
    from pipeline.read.recognition import RecognitionRules
    from pipeline.results import ReplacedResult, ResultObject

PATIENCE_S = 300.0
_OUTAGES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE})

_log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
"""Called with the name of each stage."""


class AnalysisResult(NamedTuple):
    """Findings, their DICOM objects, and other files for the outbox by name."""

    findings: Findings
    objects: tuple[ResultObject, ...]
    kept: Mapping[str, bytes] = MappingProxyType({})


Answer = TypeVar("Answer")
Work = Callable[[Job, list[Path], Progress], AnalysisResult]
"""Makes the result of a job from its images."""


class LeaseLostError(Exception):
    """The job belongs to another worker now; what was computed is discarded."""


@dataclass(frozen=True)
class AnalysisRunner:
    """Analyses jobs.

    Parameters
    ----------
    owner : str
        Name of this worker in the ledger's leases.
    work : callable
        Runs the pipeline; :func:`run_pipeline` with its device.
    reports : ReportStore
        Says which destination receives what, and writes the report.
    """

    ledger: Ledger
    archive: Archive
    queue: QueueSettings
    owner: str
    work: Work
    reports: ReportStore = field(default_factory=ReportStore)

    def analyse_next(self) -> Job | None:
        """Analyse the most urgent job that waits; returns it as it is afterwards, ``None`` if none waits.

        Input or a profile that cannot be used fails the job at once. An outage of the database or the disk postpones
        it and costs no attempt; any other error does.
        """
        job = self.ledger.claim_next_job(self.owner, self.queue.lease_s)
        return None if job is None else self._run(job)

    def _run(self, job: Job) -> Job:
        _log.info("analysis starts", job=job.id, attempt=job.attempts, profile=job.profile)
        lease_s = self.queue.lease_s
        with Heartbeat(lambda: self.ledger.heartbeat(job.id, self.owner, lease_s), lease_s) as heartbeat:
            try:
                self._analyse(job, heartbeat)
            except LeaseLostError:
                _log.warning("the result is discarded: another worker has the job now", job=job.id)
            except (InputError, ProfileError, DamagedFileError) as error:
                self._fail(job, str(error), permanent=True)
            except Exception as error:
                if is_outage(error):
                    self._postpone(job, error)
                else:
                    _log.exception("analysis failed", job=job.id)
                    self._fail(job, explain(error), permanent=False)
        return self.ledger.job(job.id)

    def _analyse(self, job: Job, heartbeat: Heartbeat) -> None:
        def progress(stage: str) -> None:
            held = not heartbeat.lost
            with suppress(OperationalError, InterfaceError):  # the lease may outlive the outage
                held = held and self.ledger.heartbeat(job.id, self.owner, self.queue.lease_s, stage)
            if not held:
                raise LeaseLostError

        findings, objects, kept = AnalysisResult(*self.work(job, self._images(job), progress))
        progress("writing the results")
        for name, content in kept.items():
            self.archive.put(job.id, name, content)
        files, document = self._write(job, objects), findings.to_json()
        files += self.reports.write(self.ledger, job, document, files, self.archive)
        self._require_same(job, files)
        takes = self.reports.takes
        if not _patiently(lambda: self.ledger.finish_analysis(job.id, self.owner, document, files, takes)):
            raise LeaseLostError
        _log.info("analysis done", job=job.id, **findings.counts)

    def _images(self, job: Job) -> list[Path]:
        """The images of a job, each checked against the digest in the ledger.

        Raises
        ------
        InputError
            Naming a damaged file. When the study is sent again, the good copies are stored and the job is retried.
        """
        images, damaged = self.ledger.job_images(job.id), {}
        for image in images:
            try:
                self.archive.verify(image)
            except DamagedFileError as error:
                damaged[image.sop_instance_uid] = str(error)
        if damaged:
            self.ledger.mark_damaged(damaged, self.owner)
            what = f"{len(damaged)} of its {len(images)} images are damaged: {next(iter(damaged.values()))}"
            raise InputError(
                what, where=f"job {job.id}", do="send the study again; the job is then retried automatically"
            )
        return [self.archive.path(image.path) for image in images]

    def _require_same(self, job: Job, files: list[ResultFile]) -> None:
        """Refuse results made again that differ from those that a destination has under the same UIDs."""
        made, recorded = {f.kind: f.sha256 for f in files}, {r.kind: r.sha256 for r in self.ledger.results(job.id)}
        accepted = (delivery.accepted_at is not None for delivery in self.ledger.deliveries(job.id))
        if recorded and made != recorded and any(accepted):
            what = "the results of the repeated analysis differ from those already sent; they are not sent"
            raise InputError(
                what, where=f"job {job.id}", do="analyse it with the software version that made those sent"
            )

    def _write(self, job: Job, objects: tuple[ResultObject, ...]) -> list[ResultFile]:
        """Write the objects into the job's outbox, each file atomically."""
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
        most = self.queue.max_attempts
        state = _patiently(lambda: self.ledger.fail_attempt(job.id, self.owner, why, most, permanent))
        if state == JobState.FAILED:
            _log.error("job failed", job=job.id, why=why)

    def _postpone(self, job: Job, error: Exception) -> None:
        why = f"postponed, {error if isinstance(error, OutOfResourcesError) else type(error).__name__}"
        _log.warning("the job is postponed: the database or the disk cannot be used", job=job.id, error=str(error))

        def pause(postponed: int) -> float:
            return pause_s(postponed, self.queue, 1.0)

        _patiently(lambda: self.ledger.postpone_job(job.id, self.owner, why, pause))


def is_outage(error: Exception) -> bool:
    """Whether the database or the disk was to blame, and not the study."""
    if isinstance(error, OSError):
        return error.errno in _OUTAGES
    return isinstance(error, OperationalError | InterfaceError | OutOfResourcesError)


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the database, again and again while it is away: a computed result is worth some patience."""
    until, pause = time.monotonic() + PATIENCE_S, 0.5
    while True:
        try:
            return ask()
        except (OperationalError, InterfaceError):
            if time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(10.0, 2 * pause)


@dataclass(frozen=True)
class AnalysisContext:
    """What an analysis or a correction is made of. The same context gives the same results, byte for byte.

    Parameters
    ----------
    job : Job
        What is analysed, with which profile; its key and `created` give the results their UIDs and their time.
    paths : sequence of Path
        The images of the job.
    created : datetime
        When the job was opened, in the zone of the results.
    device : {'auto', 'cpu', 'cuda'}
        Where networks run.
    rules : RecognitionRules, optional
        The rules that the job was routed by; by default those in the package.
    comparison : Comparison
        The prior that it is compared with; by default none.
    replaces : ReplacedResult, optional
        The result that this one replaces, if a destination has any of it.
    key_objects : bool
        Whether the slices with microbleeds are listed in a key object selection.
    rejection_note : str
        Why a rejection note rejects the result that this one replaces (`results.rejection_note`), or ``off``.
    """

    job: Job
    paths: Sequence[Path]
    created: datetime
    device: str = "auto"
    rules: RecognitionRules | None = None
    comparison: Comparison = field(default_factory=lambda: Comparison(ChangeParameters()))
    replaces: ReplacedResult | None = None
    key_objects: bool = False
    rejection_note: str = "off"

    def select_series(self, profile: Profile) -> SeriesSelection:
        """Find the series of the job among its images.

        Raises
        ------
        InputError
            If they are not there.
        """
        from pipeline.read.study import read_studies, select_series

        studies, unreadable = read_studies(self.paths, self.rules)
        study = next((s for s in studies if s.study_instance_uid == self.job.study_instance_uid), None)
        selection = select_series(study, t2star=profile.suits.t2star) if study is not None else None
        if selection is None or not selection.analysable or _swi_uid(selection) != self.job.swi_series_uid:
            broken = f"; {len(unreadable)} files cannot be read: {unreadable[0].why}" if unreadable else ""
            raise InputError(f"its SWI series is no longer in the archive{broken}", where=f"job {self.job.id}")
        return selection

    def make_results(
        self, detection: Detection, key: str, progress: Progress, volumes: bytes | None = None
    ) -> AnalysisResult:
        """Compare the findings with the prior, and make the result objects and the pictures of the study page.

        `volumes` are those of the result that is corrected.
        """
        from pipeline.detect import Stopwatch
        from pipeline.results import RejectionReason, make_results

        detection, kept = self.comparison.apply(detection, Stopwatch(progress))
        progress("results")
        objects = make_results(
            detection,
            key=key,
            created=self.created,
            replaces=self.replaces,
            key_objects=self.key_objects,
            rejection=None if self.rejection_note == "off" else RejectionReason(self.rejection_note),
        )
        return AnalysisResult(detection.findings, objects, {**_draw(detection, self.job.id, volumes), **kept})


def run_pipeline(context: AnalysisContext, progress: Progress) -> AnalysisResult:
    """Analyse the images of a job.

    Raises
    ------
    InputError
        If the series of the job are not among the images, or cannot be used.
    """
    from pipeline.detect import detect
    from pipeline.profile import load_profile

    job = context.job
    profile = load_profile(job.profile)
    selection = context.select_series(profile)
    key = selection.key(profile.digest, context.comparison.part_of_key)
    if key != job.key:
        _log.warning("images, rules or profile have changed since the job was opened", job=job.id)
    detection = detect(selection, profile, key=key, device=context.device, progress=progress)
    warnings = tuple(dict.fromkeys((*job.warnings, *detection.findings.warnings)))
    detection = replace(detection, findings=replace(detection.findings, warnings=warnings))
    return context.make_results(detection, key, progress)


def _draw(detection: Detection, job_id: int, volumes: bytes | None) -> Mapping[str, bytes]:
    """Draw the pictures for the study page; if that fails, the result is sent without them."""
    from pipeline.pictures import make_pictures

    try:
        return make_pictures(detection, volumes)
    except Exception:
        _log.exception("the pictures for the study page could not be drawn", job=job_id)
        return {}


def _swi_uid(chosen: SeriesSelection) -> str | None:
    return None if chosen.swi is None else chosen.swi.series_instance_uid

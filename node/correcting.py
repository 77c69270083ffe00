"""How is a reader's correction done? Checked before it is opened, applied by a worker like any job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from node.analysis import Outcome, Progress, draw, find_images
from node.archive import Archive
from node.comparison import Comparison
from node.ledger import Correction, Job, Ledger
from node.ledger.records import Json
from pipeline.errors import InputError
from pipeline.parameters import ChangeParameters

if TYPE_CHECKING:
    from pipeline.correction import Amendment
    from pipeline.recognition import Rules


@dataclass(frozen=True)
class EarlierResult:
    """What the ledger and the outbox hold of a result: its job's warnings, findings, and the SEG if it has one."""

    warnings: tuple[str, ...]
    document: Json
    segmentation: Path | None


def open_correction(
    ledger: Ledger, archive: Archive, job_id: int, correction: Correction, actor: str, rules: Rules | None = None
) -> Job:
    """Open the job that applies a correction, if nothing is in its way.

    Beyond what :meth:`node.ledger.Ledger.open_correction` checks: the files that it needs are there, and added bleeds
    lie within the images.

    Raises
    ------
    InputError
        If it cannot be opened; nothing was.
    """
    ledger.check_correction(job_id, correction)
    job = ledger.job(job_id)
    base = job if job.analysed_at is not None else ledger.corrected(job_id)[0]
    paths = [archive.path(relative) for relative in ledger.job_paths(job_id)]
    results = [base, *ledger.corrected(base.id)]
    needed = [*paths, *(e.segmentation for e in _files(ledger, archive, results) if e.segmentation is not None)]
    gone = [path for path in needed if not path.is_file()]
    if gone:
        what = f"{len(gone)} of its files are not in the archive any more, such as {gone[0].name}"
        raise InputError(what, where=f"job {job_id}", do="send the study again, then correct the new result")
    if correction.added:
        _require_inside(job, paths, correction, rules)
    return ledger.open_correction(job_id, correction, actor)


def _require_inside(job: Job, paths: list[Path], correction: Correction, rules: Rules | None) -> None:
    import numpy as np

    from pipeline.profile import load_profile
    from pipeline.stack import arrange

    chosen = find_images(job, paths, load_profile(job.profile), rules)
    geometry = arrange(chosen.swi or chosen.used[0]).geometry
    limit = np.array(geometry.shape[::-1]) - 0.5
    for added in correction.added:
        at = geometry.to_ijk(added.centroid_lps_mm)
        if ((at < -0.5) | (at >= limit)).any():
            place = ", ".join(f"{v:.1f}" for v in added.centroid_lps_mm)
            raise InputError(f"{place} mm (LPS) is outside the images", where=f"job {job.id}")


def earlier_results(ledger: Ledger, archive: Archive, job: Job) -> list[EarlierResult]:
    """What a correction rests on, the newest first."""
    return _files(ledger, archive, ledger.corrected(job.id))


def _files(ledger: Ledger, archive: Archive, chain: Sequence[Job]) -> list[EarlierResult]:
    found = []
    for job in chain:
        segmentations = [archive.path(r.path) for r in ledger.results(job.id) if r.kind == "seg"]
        found.append(EarlierResult(job.warnings, ledger.findings(job.id) or {}, next(iter(segmentations), None)))
    return found


def run_correction(
    job: Job,
    earlier: Sequence[EarlierResult],
    paths: list[Path],
    progress: Progress,
    created: datetime,
    predecessor: str | None = None,
    rules: Rules | None = None,
    comparison: Comparison | None = None,
    key_objects: bool = False,
) -> Outcome:
    """Apply a correction to the result that it corrects; the same again makes the same bytes.

    Raises
    ------
    InputError
        If the images or the earlier results are not what they were, or cannot be read.
    """
    from pipeline.correction import Earlier, correct
    from pipeline.detect import Stopwatch
    from pipeline.documents import read_findings
    from pipeline.profile import load_profile
    from pipeline.results import make_results

    profile = load_profile(job.profile)
    chosen = find_images(job, paths, profile, rules)
    before = [Earlier(read_findings(result.document), result.segmentation) for result in earlier]
    amendment = _amendment(job, created)
    detection = correct(chosen, profile, before, amendment, key=job.key, watch=Stopwatch(progress))
    past = set(earlier[0].warnings) - set(job.warnings)  # said of a correction before this one
    warnings = dict.fromkeys((*job.warnings, *(w for w in detection.findings.warnings if w not in past)))
    detection = replace(detection, findings=replace(detection.findings, warnings=tuple(warnings)))
    comparison = comparison or Comparison(ChangeParameters())
    detection, kept = comparison.apply(detection, Stopwatch(progress))
    progress("results")
    objects = make_results(detection, key=job.key, created=created, predecessor=predecessor, key_objects=key_objects)
    return Outcome(detection.findings, objects, {**draw(detection, job.id), **kept})


def _amendment(job: Job, created: datetime) -> Amendment:
    from pipeline.correction import Addition, Amendment
    from pipeline.findings import Certainty, Verification

    correction = job.correction
    if correction is None:
        raise InputError("it is no correction", where=f"job {job.id}")
    return Amendment(
        rejected=frozenset(v.tracking_uid for v in correction.verdicts if not v.accepted),
        accepted=frozenset(v.tracking_uid for v in correction.verdicts if v.accepted),
        added=tuple(Addition(a.centroid_lps_mm, Certainty(a.certainty)) for a in correction.added),
        verification=Verification(correction.observer, correction.organisation, created, correction.comment),
    )

"""How is a reader's correction applied? It is checked when it is opened, and a worker applies it like any job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from node.archive import Archive
from node.ledger import Correction, Job, Ledger, ResultFile
from node.ledger.records import Json
from pipeline.errors import InputError
from pipeline.pictures import VOLUMES

from .analysis import AnalysisContext, AnalysisResult, Progress

if TYPE_CHECKING:
    from pipeline.correction import ReaderCorrection
    from pipeline.read.recognition import RecognitionRules


@dataclass(frozen=True)
class EarlierResult:
    """A result in the ledger and the outbox: the warnings of its job, its findings, and its SEG if there is one.

    `volumes` are those of the viewer, ``None`` if it has none.
    """

    warnings: tuple[str, ...]
    document: Json
    segmentation: Path | None
    volumes: Path | None = None


def open_correction(
    ledger: Ledger,
    archive: Archive,
    job_id: int,
    correction: Correction,
    actor: str,
    rules: RecognitionRules | None = None,
) -> Job:
    """Open the job that applies a correction.

    In addition to what :meth:`node.ledger.Ledger.open_correction` checks, the files that it needs must be there, and
    added microbleeds must lie within the images.

    Raises
    ------
    InputError
        If it cannot be opened; the ledger is unchanged.
    """
    ledger.check_correction(job_id, correction)
    job = ledger.job(job_id)
    base = job if job.analysed_at is not None else ledger.corrected(job_id)[0]
    paths = [archive.path(relative) for relative in ledger.job_paths(job_id)]
    segmentations = [file for one in (base, *ledger.corrected(base.id)) for file in _segmentations(ledger, one)]
    needed = [*paths, *(archive.path(file.path) for file in segmentations)]
    gone = [path for path in needed if not path.is_file()]
    if gone:
        what = f"{len(gone)} of its files are no longer in the archive, such as {gone[0].name}"
        raise InputError(what, where=f"job {job_id}", do="send the study again, then correct the new result")
    if correction.added:
        _require_inside(job, paths, correction, rules)
    return ledger.open_correction(job_id, correction, actor)


def _require_inside(job: Job, paths: list[Path], correction: Correction, rules: RecognitionRules | None) -> None:
    import numpy as np

    from pipeline.profile import load_profile
    from pipeline.read.stack import arrange

    context = AnalysisContext(job, paths, job.created_at, rules=rules)
    selection = context.select_series(load_profile(job.profile))
    geometry = arrange(selection.swi or selection.used[0]).geometry
    limit = np.array(geometry.shape[::-1]) - 0.5
    for added in correction.added:
        at = geometry.to_ijk(added.centroid_lps_mm)
        if ((at < -0.5) | (at >= limit)).any():
            place = ", ".join(f"{v:.1f}" for v in added.centroid_lps_mm)
            raise InputError(f"{place} mm (LPS) is outside the images", where=f"job {job.id}")


def earlier_results(ledger: Ledger, archive: Archive, job: Job) -> list[EarlierResult]:
    """Read what a correction rests on, the newest first.

    Raises
    ------
    DamagedFileError
        If a SEG is damaged.
    """
    found = []
    for corrected in ledger.corrected(job.id):
        segmentations = _segmentations(ledger, corrected)
        for file in segmentations:
            archive.verify(file)
        path = archive.path(segmentations[0].path) if segmentations else None
        volumes = archive.path(f"outbox/{corrected.id}/{VOLUMES}")
        document = ledger.findings(corrected.id) or {}
        found.append(EarlierResult(corrected.warnings, document, path, volumes if volumes.is_file() else None))
    return found


def _segmentations(ledger: Ledger, job: Job) -> list[ResultFile]:
    return [result for result in ledger.results(job.id) if result.kind == "seg"]


def run_correction(context: AnalysisContext, earlier: Sequence[EarlierResult], progress: Progress) -> AnalysisResult:
    """Apply a correction to the result that it corrects; the same correction makes the same bytes.

    Raises
    ------
    InputError
        If the images or the earlier results are not what they were, or cannot be read.
    """
    from pipeline.correction import CorrectedResult, correct
    from pipeline.detect import Stopwatch
    from pipeline.findings.document import read_findings
    from pipeline.profile import load_profile

    job = context.job
    profile = load_profile(job.profile)
    selection = context.select_series(profile)
    before = [CorrectedResult(read_findings(result.document), result.segmentation) for result in earlier]
    reader_correction = _reader_correction(job, context.created)
    detection = correct(selection, profile, before, reader_correction, key=job.key, watch=Stopwatch(progress))
    past = set(earlier[0].warnings) - set(job.warnings)  # of an earlier correction
    warnings = dict.fromkeys((*job.warnings, *(w for w in detection.findings.warnings if w not in past)))
    detection = replace(detection, findings=replace(detection.findings, warnings=tuple(warnings)))
    kept = next((result.volumes for result in earlier if result.volumes is not None), None)
    return context.make_results(detection, job.key, progress, kept.read_bytes() if kept else None)


def _reader_correction(job: Job, created: datetime) -> ReaderCorrection:
    from pipeline.correction import AddedLesion, ReaderCorrection
    from pipeline.findings import Certainty, Verification

    correction = job.correction
    if correction is None:
        raise InputError("it is not a correction", where=f"job {job.id}")
    return ReaderCorrection(
        rejected=frozenset(v.tracking_uid for v in correction.verdicts if not v.accepted),
        accepted=frozenset(v.tracking_uid for v in correction.verdicts if v.accepted),
        added=tuple(AddedLesion(a.centroid_lps_mm, Certainty(a.certainty)) for a in correction.added),
        verification=Verification(correction.observer, correction.organisation, created, correction.comment),
        certainties={one.tracking_uid: Certainty(one.certainty) for one in correction.certainties},
    )

"""What does a worker need to compare a study with its prior, and what if the comparison fails?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from pipeline.errors import InputError
from pipeline.parameters import ChangeParameters
from pipeline.uids import derive_uid

if TYPE_CHECKING:
    from node.archive import Archive
    from node.ledger import Job, Ledger
    from node.settings.change import ChangeSettings
    from pipeline.change import Prior, ReferenceImage
    from pipeline.detect import Detection, Stopwatch

REFERENCE = "reference.npz"
"""The file in an outbox that a later study is registered to; it is kept as long as the findings."""

_log = structlog.get_logger(__name__)


def part_of_key(prior_key: str | None, parameters: ChangeParameters) -> dict[str, object]:
    """What a comparison with the job of `prior_key` adds to a job's key."""
    return {} if prior_key is None else {"prior": prior_key, "change": parameters.model_dump(mode="json")}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a worker needs to compare the result of a job with its prior.

    Parameters
    ----------
    prior : Prior or None
        The earlier study; without one, only the job's own reference image is made.
    prior_key : str or None
        Key of its analysis.
    own : bytes or None
        The job's own reference image, if it exists already.
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
        """Compare; also returns files for the outbox. If the comparison fails, the result is kept and says so."""
        from pipeline.change import ReferenceImage, compare, make_reference, not_compared

        reference = None
        with watch("change over time"):
            try:
                if self.own is not None:
                    reference = ReferenceImage.from_bytes(self.own)
                elif detection.brain is not None:
                    reference = make_reference(detection.acquisition, detection.brain)
                if self.prior is not None:
                    detection = compare(detection, self.prior, self.parameters, reference)
            except Exception as error:
                _log.exception("the comparison with the prior failed")
                if self.prior is not None:
                    detection = not_compared(detection, self.prior, f"it failed ({type(error).__name__})")
        findings = replace(detection.findings, timing_s={**detection.findings.timing_s, **watch.seconds})
        kept = {} if reference is None else {REFERENCE: reference.to_bytes()}
        return replace(detection, findings=findings), kept


def prepare(ledger: Ledger, archive: Archive, job: Job, settings: ChangeSettings) -> Comparison:
    """Read from the ledger and the outbox what a job is compared with."""
    own = None
    if job.correction is not None:
        own = _reference_bytes(archive, ledger.corrected(job.id))
    if job.prior_job_id is None:
        return Comparison(settings.parameters, own=own)
    prior = ledger.job(job.prior_job_id)
    return Comparison(settings.parameters, _prior(ledger, archive, prior), prior.key, own)


def _prior(ledger: Ledger, archive: Archive, job: Job) -> Prior:
    from pipeline.change import Prior, ReferenceImage
    from pipeline.findings import read_findings

    study = ledger.study(job.study_instance_uid)
    findings = read_findings(ledger.findings(job.id) or {})
    reference: ReferenceImage | None = None
    why = "the prior was analysed without keeping a reference image; analyse it again"
    packed = _reference_bytes(archive, [job, *ledger.corrected(job.id)])
    if packed is not None:
        try:
            reference, why = ReferenceImage.from_bytes(packed), ""
        except InputError as error:
            why = f"the reference image of the prior: {error}"
    report = derive_uid(job.key, "sr", "instance")
    # If only a report was sent to the RIS, no PACS has an object to refer to.
    sent = any(delivery.result.sop_instance_uid == report for delivery in ledger.deliveries(job.id))
    return Prior(
        findings,
        reference,
        job.study_instance_uid,
        study.study_date,
        sr_sop_instance_uid=report if sent else None,
        sr_series_instance_uid=derive_uid(job.key, "sr", "series") if sent else None,
        why=why,
        swi=_swi(archive, [job, *ledger.corrected(job.id)]),
    )


def _swi(archive: Archive, jobs: list[Job]) -> bytes | None:
    """The SWI for the viewer of the first of these jobs that has one."""
    from pipeline.pictures import VOLUMES, PictureArchive

    for job in jobs:
        try:
            with PictureArchive(archive.path(f"outbox/{job.id}/{VOLUMES}")) as pictures:
                return pictures.picture("swi.nii.gz")
        except InputError:
            continue
    return None


def _reference_bytes(archive: Archive, jobs: list[Job]) -> bytes | None:
    """The reference image of the first of these jobs that has one; all have the same images."""
    for job in jobs:
        path = archive.path(f"outbox/{job.id}/{REFERENCE}")
        if path.is_file():
            return path.read_bytes()
    return None

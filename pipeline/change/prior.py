"""What must be known of an earlier study to compare with it? Findings, reference image, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.change.reference import Reference
from pipeline.findings import Findings


@dataclass(frozen=True, eq=False)
class Prior:
    """An earlier study of the same patient that was analysed.

    Parameters
    ----------
    findings : Findings
        What was found, as it stands: with a reader's correction, if there is one.
    reference : Reference or None
        Its reference image; without one, `why` says why and nothing is compared.
    study_instance_uid, study_date : str
        Which study, and of when (DICOM DA).
    sr_sop_instance_uid, sr_series_instance_uid : str or None
        Its report, if that went anywhere.
    """

    findings: Findings
    reference: Reference | None
    study_instance_uid: str
    study_date: str
    sr_sop_instance_uid: str | None = None
    sr_series_instance_uid: str | None = None
    why: str = ""

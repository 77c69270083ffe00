"""What did the detector find in each study, and what did a reader make of it? Rows for monitoring; no patients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Subquery, and_, func, select

from pipeline.findings.wording import OUTSIDE_RANGE

from .engine import Store
from .models import findings, jobs, series, studies
from .records import QA_PATIENT_ID
from .rows import Row

_OF_OLD = "outside the training range"
"""What results of earlier versions said instead."""


@dataclass(frozen=True)
class MonitoredStudy:
    """One study as the detector's newest result describes it, and the reader's verified result if there is one.

    Parameters
    ----------
    scanner : str
        Manufacturer and station name, as its images give them; empty if they give none.
    total, definite : int
        Findings of the detector, whether a reader has rejected them or not.
    snr, motion : float, optional
        Measures of the images, `pipeline.findings.ImageQuality`.
    outside_training : bool
        Whether the result warns that the images are outside the range that the profile is meant for.
    verified : bool
        Whether a reader has verified the result.
    rejected, added : int
        Findings of the detector that the reader rejected, and microbleeds that the reader added.
    """

    received_at: datetime
    scanner: str
    profile: str
    total: int
    definite: int
    snr: float | None
    motion: float | None
    outside_training: bool
    verified: bool
    rejected: int = 0
    added: int = 0


class Monitoring(Store):
    """The detector's results, study by study."""

    def monitored_studies(self, since: datetime) -> list[MonitoredStudy]:
        """Every analysed study received since then, the oldest first; phantoms of site QA are left out."""
        detected, corrected = _newest(of_reader=False), _newest(of_reader=True)
        reader = findings.alias("reader")
        measures = findings.c.document
        query = (
            select(
                studies.c.first_received_at,
                series.c.manufacturer,
                series.c.station_name,
                jobs.c.profile,
                findings.c.total,
                findings.c.definite,
                findings.c.limits,
                measures[("quality", "measures", "snr")].as_float().label("snr"),
                measures[("quality", "measures", "motion")].as_float().label("motion"),
                reader.c.total.label("verified_total"),
                func.json_array_length(reader.c.document["rejected"]).label("rejected"),
            )
            .join(detected, detected.c.study_instance_uid == studies.c.study_instance_uid)
            .join(jobs, jobs.c.id == detected.c.job_id)
            .join(findings, findings.c.job_id == detected.c.job_id)
            .outerjoin(
                series, series.c.series_instance_uid == func.coalesce(jobs.c.swi_series_uid, jobs.c.phase_series_uid)
            )
            .outerjoin(
                corrected,
                and_(
                    corrected.c.study_instance_uid == studies.c.study_instance_uid,
                    corrected.c.job_id > detected.c.job_id,
                ),
            )
            .outerjoin(reader, reader.c.job_id == corrected.c.job_id)
            .where(studies.c.first_received_at >= since, studies.c.patient_id != QA_PATIENT_ID)
            .order_by(studies.c.first_received_at)
        )
        with self._read() as connection:
            return [_monitored(row) for row in connection.execute(query).mappings()]


def _newest(*, of_reader: bool) -> Subquery:
    """The newest result of each study that the detector, or a reader, made."""
    by = jobs.c.correction.is_not(None) if of_reader else jobs.c.correction.is_(None)
    return (
        select(jobs.c.study_instance_uid, func.max(jobs.c.id).label("job_id"))
        .join(findings, findings.c.job_id == jobs.c.id)
        .where(by)
        .group_by(jobs.c.study_instance_uid)
        .subquery()
    )


def _monitored(row: Row) -> MonitoredStudy:
    verified, rejected = row["verified_total"] is not None, int(row["rejected"] or 0)
    return MonitoredStudy(
        received_at=row["first_received_at"],
        scanner=" ".join(filter(None, (row["manufacturer"], row["station_name"]))),
        profile=row["profile"],
        total=row["total"],
        definite=row["definite"],
        snr=row["snr"],
        motion=row["motion"],
        outside_training=not {OUTSIDE_RANGE, _OF_OLD}.isdisjoint(row["limits"].split("; ")),
        verified=verified,
        rejected=rejected,
        added=row["verified_total"] + rejected - row["total"] if verified else 0,
    )

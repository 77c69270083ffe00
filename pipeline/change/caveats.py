"""How do two studies differ, so that a change between them may come from the images and not from the brain?"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.findings import Findings

from .reference import ScanParameters

_NAMES = {"swi": "SWI", "t2star": "T2*-GRE"}
ECHO_SHARE, FIELD_SHARE, VOXEL_SHARE = 0.1, 0.1, 0.2
"""Relative differences from which on a caveat is given."""


def of_scans(present: ScanParameters, prior: ScanParameters) -> Iterator[str]:
    """Say how the two acquisitions differ."""
    if present.sequence != prior.sequence:
        now, then = _NAMES[present.sequence], _NAMES[prior.sequence]
        yield f"{now} now, {then} then: SWI shows more microbleeds than T2*-GRE, which may explain a difference"
    field = _different(present.field_strength_t, prior.field_strength_t, FIELD_SHARE)
    if field:
        yield f"field strength {field[0]:g} T now, {field[1]:g} T then: a higher field shows more microbleeds"
    echo = _different(present.echo_time_ms, prior.echo_time_ms, ECHO_SHARE)
    if echo and not field:
        yield f"echo time {echo[0]:g} ms now, {echo[1]:g} ms then: a longer echo time shows more microbleeds"
    step = _different(present.voxel_mm[2], prior.voxel_mm[2], VOXEL_SHARE)
    if step:
        yield f"slices of {step[0]:.1f} mm now, {step[1]:.1f} mm then: thinner slices show more microbleeds"
    plane = _different(max(present.voxel_mm[:2]), max(prior.voxel_mm[:2]), VOXEL_SHARE)
    if plane:
        yield f"pixels of {plane[0]:.2f} mm now, {plane[1]:.2f} mm then: smaller pixels show more microbleeds"
    if present.phase != prior.phase:
        when = "only in the present study" if present.phase else "only in the prior"
        yield f"phase images {when}: without phase, calcifications may count as microbleeds"


def of_readings(present: Findings, prior: Findings) -> Iterator[str]:
    """Say how the two analyses differ."""
    if (present.profile, present.weights) != (prior.profile, prior.weights):
        what = f"profile {present.profile} now, {prior.profile} then"
        if present.profile == prior.profile:
            what = f"profile {present.profile}, but with weights other than those of the prior"
        yield f"detected with {what}: analyse both studies in the same way for a fair comparison"
    elif present.software != prior.software:
        yield f"detected with software {present.software} now, {prior.software} then"
    if (present.verification is None) != (prior.verification is None):
        yield f"only the {'prior' if prior.verification else 'present'} result was verified by a reader"


def _different(now: float | None, then: float | None, share: float) -> tuple[float, float] | None:
    if now is None or then is None or abs(now - then) <= share * max(now, then):
        return None
    return now, then

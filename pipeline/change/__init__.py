"""What has changed since an earlier scan of the same patient? New bleeds, stable ones, ones no longer seen, ARIA-H."""

from __future__ import annotations

from pipeline.change.compare import compare, not_compared
from pipeline.change.prior import Prior
from pipeline.change.reference import Reference, Scan, make_reference
from pipeline.change.registration import Pose, register
from pipeline.parameters import ChangeParameters

__all__ = [
    "ChangeParameters",
    "Pose",
    "Prior",
    "Reference",
    "Scan",
    "compare",
    "make_reference",
    "not_compared",
    "register",
]

"""What has changed since a prior study? New, stable and no longer seen microbleeds, and the grade of ARIA-H."""

from __future__ import annotations

from pipeline.parameters import ChangeParameters

from .compare import compare, not_compared
from .reference import Prior, ReferenceImage, ScanParameters, make_reference
from .registration import Pose, register

__all__ = [
    "ChangeParameters",
    "Pose",
    "Prior",
    "ReferenceImage",
    "ScanParameters",
    "compare",
    "make_reference",
    "not_compared",
    "register",
]

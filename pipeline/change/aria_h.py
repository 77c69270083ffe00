"""How are numbers of microbleeds graded? The radiographic grade of ARIA-H, and thresholds that are passed."""

from __future__ import annotations

from pipeline.parameters import ChangeParameters

GRADES = ("none", "mild", "moderate", "severe")


def aria_h(new: int, parameters: ChangeParameters) -> str:
    """Radiographic severity by the number of new (treatment-emergent) microbleeds.

    The bins 1–4, 5–9 and 10 or more are those of the prescribing information of lecanemab (table of ARIA-H) and of
    Cogswell et al. 2022 (AJNR 43:E19); superficial siderosis, which is part of the scale, is not assessed.
    """
    limits = (parameters.mild, parameters.moderate, parameters.severe)
    return GRADES[sum(new >= limit for limit in limits)]


def flags(total: int, parameters: ChangeParameters) -> tuple[str, ...]:
    """The thresholds that the number of microbleeds passes, in words."""
    return tuple(f"more than {n} microbleeds" for n in sorted(set(parameters.more_than)) if total > n)

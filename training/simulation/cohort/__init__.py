"""How are many studies made? A TOML file says what; splits are by anatomy; the work can stop and go on."""

from .plan import Cohort, StudySet, available_cohorts, load_cohort
from .run import Budget, Options, run_cohorts

__all__ = ["Budget", "Cohort", "Options", "StudySet", "available_cohorts", "load_cohort", "run_cohorts"]

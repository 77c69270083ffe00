"""What can be set of the comparison with earlier studies?"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from pipeline.parameters import ChangeParameters


class ChangeSettings(ChangeParameters):
    """Change over time: the choice of a prior study, and the comparison with it."""

    enabled: bool = Field(True, description="Compare with the latest analysed prior study of the same patient")
    min_days: int = Field(1, ge=0, description="A prior study must be at least this many days older")

    @cached_property
    def parameters(self) -> ChangeParameters:
        """What the pipeline is told, and what a job's key is made of."""
        return ChangeParameters(**self.model_dump(include=set(ChangeParameters.model_fields)))

"""What may a stage's settings look like? One strict, frozen base for every parameter table of a profile."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """Base of every parameter table: unknown keys, infinities and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

"""What can be set of site QA? Where its phantom goes in and its results go, and which differences are an alarm."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from .connections import AETitle


class QaSettings(BaseModel):
    """Site QA, `cmbnode qa run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | None = Field(
        None, description="Host of the receiver that the phantom is sent to; none: the address it listens on"
    )
    calling_ae_title: AETitle | None = Field(
        None,
        description="AE title that the phantom is sent from; none: the first of `receiver.calling_ae_titles`, or "
        "`ae_title` if there are none",
    )
    destinations: tuple[str, ...] = Field(
        (), description="Names of the destinations that receive results of the phantom; empty: they stay in the node"
    )
    time_limit_s: float = Field(
        1800.0, gt=0, description="A run fails if its results are not there after this many seconds"
    )
    least_sensitivity: float = Field(
        0.5, ge=0, le=1, description="Alarm if a smaller share of the phantom's visible microbleeds is found"
    )
    most_change: float = Field(
        0.1, gt=0, description="Alarm if a volume or diameter differs by more than this share from the last good run"
    )
    most_slowdown: float = Field(
        2.0, gt=1, description="Alarm if the analysis takes more than this many times as long as in the last good run"
    )
    keep_days: float = Field(
        3.0, ge=0, description="A run erases the phantoms that were received more than this many days ago"
    )

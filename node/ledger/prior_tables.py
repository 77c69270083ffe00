"""Which tables hold the requests for earlier studies?"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from .models import UtcDateTime, metadata

prior_requests = Table(
    "prior_requests",
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default=text("6")),
    Column("study_revision", Integer, nullable=False),  # the study's at the time of the request
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("owner", Text, nullable=False, server_default=""),
    Column("lease_expires_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("deadline_at", UtcDateTime, nullable=False),  # the study waits until then
    Column("late", Boolean, nullable=False, server_default=text("false")),  # it was routed at the deadline
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Index(None, "state", "next_attempt_at"),
)
"""One row per study whose earlier studies were requested."""

priors = Table(
    "priors",
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("prior_requests.study_instance_uid"), primary_key=True),
    Column("prior_study_uid", String(64), primary_key=True),  # no foreign key: the row exists before the study arrives
    Column("study_date", Text, nullable=False, server_default=""),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("expected", Integer, nullable=False, server_default=text("0")),
    Column("completed", Integer, nullable=False, server_default=text("0")),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("warnings", Integer, nullable=False, server_default=text("0")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Index(None, "prior_study_uid"),
)
"""One row per earlier study that is fetched for another one, with the counts of its sub-operations."""

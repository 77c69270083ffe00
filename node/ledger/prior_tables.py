"""What tables hold the earlier studies that were asked for?"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from node.ledger.models import UtcDateTime, metadata

prior_requests = Table(
    "prior_requests",
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default=text("6")),
    Column("study_revision", Integer, nullable=False),  # the study's when it was asked for
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("owner", Text, nullable=False, server_default=""),
    Column("lease_expires_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("deadline_at", UtcDateTime, nullable=False),  # the study waits no longer
    Column("late", Boolean, nullable=False, server_default=text("false")),  # it did not wait any longer
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Index(None, "state", "next_attempt_at"),
)
"""One row a study that earlier ones were asked for."""

priors = Table(
    "priors",
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("prior_requests.study_instance_uid"), primary_key=True),
    Column("prior_study_uid", String(64), primary_key=True),  # no foreign key: it is named before it arrives
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
"""One row an earlier study that is fetched for another one, with the counts of its sub-operations."""

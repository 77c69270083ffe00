"""Which table holds the work items of a worklist manager?"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Index, Integer, String, Table, Text, text

from .models import UtcDateTime, metadata

work_items = Table(
    "work_items",
    metadata,
    Column("workitem_uid", String(64), primary_key=True),
    Column("claimed", Boolean, nullable=False, server_default=text("false")),  # the manager scheduled it
    Column("study_instance_uid", String(64), nullable=False),  # no foreign key: its images may be still to be fetched
    Column("job_id", Integer),
    Column("state", String(16), nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("replaces", String(64)),  # the cancelled item that it takes the place of
    Column("told", Text, nullable=False, server_default=""),
    Column("told_job_state", String(16), nullable=False, server_default=""),
    Column("cancel_answer", Text, nullable=False, server_default=""),
    Column("failure", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", UtcDateTime, nullable=False),  # who tells the manager moves it ahead: a lease
    Column("fetch_attempts", Integer, nullable=False, server_default=text("0")),
    Column("fetch_at", UtcDateTime),  # null: its images are in the archive
    Column("why", Text, nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Index(None, "ended_at", "next_at"),
    Index(None, "study_instance_uid"),
    Index(None, "job_id"),
)
"""One row per work item; one without a study says since when there is a manager."""

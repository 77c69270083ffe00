"""Which tables hold the studies that are fetched from a PACS that does not route?"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text, text

from .models import UtcDateTime, metadata

pull_sources = Table(
    "pull_sources",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", Text, nullable=False, server_default=""),
    Column("lease_expires_at", UtcDateTime),
    Column("next_query_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # queries that failed since the last success
    Column("why", Text, nullable=False, server_default=""),  # why the last query failed
    Column("failing_since", UtcDateTime),
    Column("queried_at", UtcDateTime),  # the last query that succeeded
    Column("found", Integer, nullable=False, server_default=text("0")),  # studies that it returned
    Column("note", Text, nullable=False, server_default=""),  # what the PACS left out of its answer
)
"""One row per PACS that is queried for new studies."""

pulls = Table(
    "pulls",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),  # no foreign key: the row exists before the study
    Column("source", String(64), nullable=False),
    Column("study_date", Text, nullable=False, server_default=""),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("announced", Integer),  # images of the study, as the last query returned
    Column("counted", Integer),  # the sum over its series, as they were last queried
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("owner", Text, nullable=False, server_default=""),
    Column("lease_expires_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("first_attempt_at", UtcDateTime),
    Column("found_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),  # in the answer to a query, the last time
    Column("ended_at", UtcDateTime),
    Column("expected", Integer, nullable=False, server_default=text("0")),
    Column("completed", Integer, nullable=False, server_default=text("0")),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("warnings", Integer, nullable=False, server_default=text("0")),
    Index(None, "state", "source", "next_attempt_at"),
    Index(None, "seen_at"),
)
"""One row per study that a query returned, with the counts of its last retrieval."""

"""Which tables hold accounts, sessions, sign-in attempts, the audit, and what was sent of it?"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, text

from .models import UtcDateTime, metadata


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    _text("display_name"),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),  # Argon2id with its parameters and salt (RFC 9106)
    Column("created_at", UtcDateTime, nullable=False),
    Column("password_set_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),  # SHA-256; only the browser or program has the token itself
    Column("user_name", String(64), ForeignKey("users.name"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    _text("address"),
    Index(None, "user_name"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "key", "at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("user_name", String(64), nullable=False),  # no foreign key: the command line has no account
    Column("action", String(32), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, server_default=""),
    _text("detail"),
    _text("address"),
    Index(None, "at"),
    Index(None, "user_name", "id"),
    Index(None, "study_instance_uid", "id"),
)

audit_feed = Table(  # one row, if there is an audit repository: what it has been told
    "audit_feed",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("audit_id", Integer, nullable=False),  # all up to this row of `audit`
    Column("history_id", Integer, nullable=False),  # all up to this row of `history`
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", UtcDateTime, nullable=False),
    _text("why"),  # the last attempt failed
    Column("begun_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
)

"""Studies that are fetched from a PACS that does not route."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pull_sources",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("next_query_at", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("failing_since", UtcDateTime(), nullable=True),
        sa.Column("queried_at", UtcDateTime(), nullable=True),
        sa.Column("found", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pull_sources")),
    )
    op.create_table(
        "pulls",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("study_date", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("announced", sa.Integer(), nullable=True),
        sa.Column("counted", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("first_attempt_at", UtcDateTime(), nullable=True),
        sa.Column("found_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        *(
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
            for name in ("expected", "completed", "failed", "warnings")
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_pulls")),
    )
    op.create_index(
        op.f("ix_pulls_state_source_next_attempt_at"), "pulls", ["state", "source", "next_attempt_at"], unique=False
    )
    op.create_index(op.f("ix_pulls_seen_at"), "pulls", ["seen_at"], unique=False)


def downgrade() -> None:
    op.drop_table("pulls")
    op.drop_table("pull_sources")

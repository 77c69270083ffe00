"""Work items of a worklist manager, and what it was told about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "work_items",
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("claimed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("replaces", sa.String(length=64), nullable=True),
        sa.Column("told", sa.Text(), server_default="", nullable=False),
        sa.Column("told_job_state", sa.String(length=16), server_default="", nullable=False),
        sa.Column("cancel_answer", sa.Text(), server_default="", nullable=False),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("fetch_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fetch_at", UtcDateTime(), nullable=True),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("workitem_uid", name=op.f("pk_work_items")),
    )
    op.create_index(op.f("ix_work_items_ended_at_next_at"), "work_items", ["ended_at", "next_at"], unique=False)
    op.create_index(op.f("ix_work_items_study_instance_uid"), "work_items", ["study_instance_uid"], unique=False)
    op.create_index(op.f("ix_work_items_job_id"), "work_items", ["job_id"], unique=False)


def downgrade() -> None:
    op.drop_table("work_items")

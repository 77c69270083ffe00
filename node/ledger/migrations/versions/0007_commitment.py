"""Storage commitment: what a destination was asked to commit to, and by when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("commit_at", UtcDateTime(), nullable=True))
    op.add_column("deliveries", sa.Column("commit_by", UtcDateTime(), nullable=True))
    op.add_column("deliveries", sa.Column("commit_transaction", sa.String(length=64), nullable=True))
    op.add_column("deliveries", sa.Column("commit_resent", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index(op.f("ix_deliveries_commit_transaction"), "deliveries", ["commit_transaction"], unique=False)
    op.create_table(
        "commitment_requests",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.Text(), server_default="", nullable=False),
        sa.Column("peer", sa.Text(), server_default="", nullable=False),
        sa.Column("instance_references", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitment_requests")),
    )
    op.create_index(
        op.f("ix_commitment_requests_next_attempt_at"), "commitment_requests", ["next_attempt_at"], unique=False
    )


def downgrade() -> None:
    op.drop_table("commitment_requests")
    op.drop_index(op.f("ix_deliveries_commit_transaction"), table_name="deliveries")
    for column in ("commit_resent", "commit_transaction", "commit_by", "commit_at"):
        op.drop_column("deliveries", column)

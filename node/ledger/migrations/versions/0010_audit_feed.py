"""What an audit repository has been told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_feed",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("audit_id", sa.Integer(), nullable=False),
        sa.Column("history_id", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("begun_at", UtcDateTime(), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_feed")),
    )


def downgrade() -> None:
    op.drop_table("audit_feed")

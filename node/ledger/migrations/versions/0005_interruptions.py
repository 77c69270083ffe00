"""What interrupted a job beside its own failures: workers that died, outages of the database or the disk."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lost", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("postponed", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("not_before", UtcDateTime(), nullable=True))


def downgrade() -> None:
    for column in ("not_before", "postponed", "lost"):
        op.drop_column("jobs", column)

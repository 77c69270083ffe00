"""What limits a result, in words for a list."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("findings", sa.Column("limits", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("findings", "limits")

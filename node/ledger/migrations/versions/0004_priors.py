"""Earlier studies asked for, and which analysis was compared with which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.ledger.models import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("issuer_of_patient_id", sa.Text(), server_default="", nullable=False))
    op.add_column("studies", sa.Column("fetched", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("studies", sa.Column("held_since", UtcDateTime(), nullable=True))
    op.add_column("jobs", sa.Column("prior_job_id", sa.Integer(), nullable=True))
    op.create_table(
        "prior_requests",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("6"), nullable=False),
        sa.Column("study_revision", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("deadline_at", UtcDateTime(), nullable=False),
        sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["studies.study_instance_uid"], name=op.f("fk_prior_requests_study_instance_uid")
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_prior_requests")),
    )
    op.create_index(
        op.f("ix_prior_requests_state_next_attempt_at"), "prior_requests", ["state", "next_attempt_at"], unique=False
    )
    op.create_table(
        "priors",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("prior_study_uid", sa.String(length=64), nullable=False),
        sa.Column("study_date", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("expected", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("completed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("warnings", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["prior_requests.study_instance_uid"], name=op.f("fk_priors_study_instance_uid")
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", "prior_study_uid", name=op.f("pk_priors")),
    )
    op.create_index(op.f("ix_priors_prior_study_uid"), "priors", ["prior_study_uid"], unique=False)


def downgrade() -> None:
    op.drop_table("priors")
    op.drop_table("prior_requests")
    op.drop_column("jobs", "prior_job_id")
    for column in ("held_since", "fetched", "issuer_of_patient_id"):
        op.drop_column("studies", column)

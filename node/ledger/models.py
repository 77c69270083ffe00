"""What tables does the ledger have? SQLAlchemy tables, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

UNROUTED = text("routed_revision IS NULL OR routed_revision <> revision")
OPEN = text("ended_at IS NULL")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no zone, so it is converted on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse naive times: nobody could say which zone they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without zone: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give an aware time back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _uid(name: str, *args: ForeignKey, primary_key: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, String(64), *args, primary_key=primary_key, nullable=nullable)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _count(name: str, start: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text(str(start)))


studies = Table(
    "studies",
    metadata,
    _uid("study_instance_uid", primary_key=True),
    _text("patient_id"),
    _text("issuer_of_patient_id"),
    _text("patient_name"),
    _text("patient_birth_date"),
    _text("patient_sex"),
    _text("accession_number"),
    _text("study_date"),
    _text("study_time"),
    _text("study_description"),
    _text("referring_physician"),
    _count("revision"),  # counts new and reopened series
    Column("routed_revision", Integer),
    _text("why"),  # what routing had to say
    Column("current_job_id", Integer),  # no foreign key: jobs refer to studies already
    Column("first_received_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    Column("fetched", Boolean, nullable=False, server_default=text("false")),  # came only because it was asked for
    Column("held_since", UtcDateTime),  # waits for an earlier study
    Index(None, "patient_id", "study_date"),
    Index(None, "last_received_at"),
    Index(None, "first_received_at"),
    Index("ix_studies_unrouted", "study_instance_uid", sqlite_where=UNROUTED, postgresql_where=UNROUTED),
)

series = Table(
    "series",
    metadata,
    _uid("series_instance_uid", primary_key=True),
    _uid("study_instance_uid", ForeignKey("studies.study_instance_uid")),
    _text("modality"),
    Column("series_number", Integer),
    _text("description"),
    _text("manufacturer"),
    _text("body_part"),
    _text("station_name"),
    _text("institution"),
    _text("calling_ae"),
    Column("state", String(16), nullable=False),
    _count("revision", 1),
    _text("role"),
    _text("rule"),
    _text("why"),
    Column("needs_confirmation", Boolean, nullable=False, server_default=text("false")),
    Column("whole", Boolean, nullable=False, server_default=text("true")),  # it settled with evidence
    _text("settled_why"),
    _count("instance_count"),
    Column("first_instance_at", UtcDateTime, nullable=False),
    Column("last_instance_at", UtcDateTime, nullable=False),
    Index(None, "study_instance_uid"),
    Index(None, "state"),
)

associations = Table(
    "associations",
    metadata,
    _uid("series_instance_uid", ForeignKey("series.series_instance_uid"), primary_key=True),
    Column("association", String(128), primary_key=True),
    Column("ended_at", UtcDateTime),
    Column("released", Boolean, nullable=False, server_default=text("false")),
    Index("ix_associations_open", "association", sqlite_where=OPEN, postgresql_where=OPEN),
)

instances = Table(
    "instances",
    metadata,
    _uid("sop_instance_uid", primary_key=True),
    _uid("series_instance_uid", ForeignKey("series.series_instance_uid")),
    _uid("sop_class_uid"),
    _uid("transfer_syntax_uid"),
    _text("path"),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    _count("number_of_frames", 1),
    _text("orientation"),
    Column("position", Float),
    _text("calling_ae"),
    _text("peer"),
    Column("received_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    Index(None, "series_instance_uid"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    _text("path"),
    _text("why"),
    _text("sop_instance_uid"),
    _text("series_instance_uid"),
    _text("study_instance_uid"),
    Column("size", BigInteger, nullable=False),
    _text("sha256"),
    _text("calling_ae"),
    _text("peer"),
)

LIVE = text("superseded_by IS NULL AND state <> 'superseded'")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False),
    _uid("study_instance_uid", ForeignKey("studies.study_instance_uid")),
    _uid("swi_series_uid", nullable=True),  # none: the SWI is computed from phase and magnitude
    _uid("phase_series_uid", nullable=True),
    _uid("magnitude_series_uid", nullable=True),
    _text("profile"),
    _count("priority", 6),
    Column("destinations", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("input_revision", Integer, nullable=False),  # sum of the revisions of its series when their files were read
    Column("state", String(16), nullable=False),
    _text("why"),
    _text("progress"),
    _count("attempts"),
    _count("lost"),  # workers that died or fell silent while they analysed it
    _count("postponed"),  # how often an outage of the database or the disk ended its analysis
    Column("not_before", UtcDateTime),  # it pauses until then
    _text("owner"),
    Column("lease_expires_at", UtcDateTime),
    Column("supersedes", Integer, ForeignKey("jobs.id")),
    Column("superseded_by", Integer, ForeignKey("jobs.id")),
    Column("correction", JSON(none_as_null=True)),  # what a reader says of the result of `supersedes`
    Column("prior_job_id", Integer),  # the analysis of an earlier study that it is compared with
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("analysed_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Index("uq_jobs_live_key", "key", unique=True, sqlite_where=LIVE, postgresql_where=LIVE),
    Index(None, "study_instance_uid"),
    Index(None, "state", "priority", "id"),
    sqlite_autoincrement=True,  # a number shown to people is never used twice
)

findings = Table(
    "findings",
    metadata,
    Column("job_id", Integer, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
    _count("total"),
    _count("definite"),
    _count("possible"),
    _text("pattern"),  # strictly lobar, strictly deep, mixed, none; empty: not assessed
    Column("new", Integer),  # microbleeds that an earlier study did not show; null: not compared
    _text("aria_h"),  # radiographic grade of the new microbleeds; empty: not assessed
    _text("verified_by"),
    _text("limits"),  # what limits the result, for a list; separated by semicolons
    Column("created_at", UtcDateTime, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    _uid("sop_instance_uid"),
    _uid("sop_class_uid"),
    _text("path"),
    Column("size", BigInteger, nullable=False),
    _text("sha256"),
    Index(None, "job_id", "kind", unique=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Integer, ForeignKey("jobs.id"), nullable=False),
    Column("result_id", Integer, ForeignKey("results.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    _count("priority", 6),
    Column("state", String(16), nullable=False),
    _count("attempts"),
    _text("owner"),
    Column("lease_expires_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("status", Integer),
    _text("answer"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("first_attempt_at", UtcDateTime),
    Column("accepted_at", UtcDateTime),
    Column("commit_at", UtcDateTime),  # storage commitment is requested then; null: it need not be
    Column("commit_by", UtcDateTime),  # the destination must have committed by then; null: it need not
    _uid("commit_transaction", nullable=True),  # the request that waits for an answer
    _count("commit_resent"),  # how often it was sent again because it was not committed
    Index(None, "commit_transaction"),
    Index(None, "job_id"),
    Index(None, "result_id", "destination", unique=True),
    Index(None, "state", "destination", "priority", "id"),
)

commitment_requests = Table(  # of others, about images that they sent
    "commitment_requests",
    metadata,
    _uid("transaction_uid", primary_key=True),
    _text("calling_ae"),
    _text("peer"),
    Column("instance_references", JSON, nullable=False),  # pairs of SOP class and instance UID
    _count("attempts"),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "next_attempt_at"),
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("entity", String(16), nullable=False),
    Column("entity_id", String(64), nullable=False),
    _text("from_state"),
    _text("to_state"),
    _text("why"),
    _text("actor"),
    Index(None, "entity", "entity_id"),
)

notices = Table(  # one row for each event and way of telling it; names no patient
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("channel", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    _text("subject"),  # the number of a job, the name of a destination, ...
    _text("detail"),
    Column("is_open", Boolean, nullable=False),  # it lasts until it is over
    Column("is_over", Boolean, nullable=False),  # tells that something is over
    Column("at", UtcDateTime, nullable=False),
    Column("message", String(32), nullable=False, server_default=""),  # the message that tells it
    _count("attempts"),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Index(None, "channel", "sent_at"),
    Index(None, "channel", "kind", "subject"),
)

tallies = Table(  # what the metrics count; only added, see `node.ledger.tallies`
    "tallies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("metric", String(64), nullable=False),
    _text("labels"),  # JSON, sorted
    Column("le", Float),  # upper bound of a histogram's bucket; null: a counter, or beyond the last bucket
    Column("number", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
)

"""Are the services in order that the node works with? Redis, database, profiles, destinations, sources of studies."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from node.atna.syslog import NotReceivedError, SyslogRepository
from node.deliver.check import LONGEST_WAIT_S, check_destination
from node.ledger import Ledger
from node.notices.channels import NotSentError, open_channels
from node.processes.parts import read_not_running, read_parts
from node.queue import QueueAwayError, make_app
from node.run.redis_server import RedisError, find_redis_server
from node.settings import DicomDestination, Settings
from node.settings.destinations import DestinationSettings, StowDestination
from node.settings.pacs import PacsSettings
from node.text import one_line
from pipeline.errors import CmbError

from .verdict import Checkup, note, ok, wrong, wrong_because


def check_redis(settings: Settings) -> Iterator[Checkup]:
    """The Redis that is named, or the one that `cmbnode up` would start."""
    if settings.redis_url is None:
        try:
            program = find_redis_server()
        except RedisError as error:
            yield wrong_because("Redis", error)
            return
        version = ".".join(map(str, program.version))
        if program.supported:
            yield ok("Redis", f"`cmbnode up` starts its own ({program.path}, version {version})")
        else:
            yield note(
                "Redis",
                f"`cmbnode up` starts its own, version {version}, which no longer gets security updates",
                "install redis-server 7 or newer",
            )
        return
    try:
        with make_app(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=LONGEST_WAIT_S)
        yield ok("Redis", "answers")
    except (QueueAwayError, OSError) as error:
        yield wrong("Redis", f"does not answer ({one_line(str(error))})", "start it, or correct redis_url")


def check_database(settings: Settings) -> Iterator[Checkup]:
    """The database, and whether this version knows its schema."""
    if settings.database_url is None and not (settings.data_dir / "ledger.sqlite3").is_file():
        yield note("database", "there is none yet", "`cmbnode up` creates it in the data folder")
        return
    ledger = Ledger(settings.ledger_url)
    name = ledger.engine.dialect.name
    try:
        schema = ledger.schema()
        if schema.is_newer:
            schema.require_known()
        if not schema.current:
            yield note("database", f"{name}: it is empty", "the node creates its tables when it starts")
        elif schema.current != schema.newest:
            yield note(
                "database",
                f"{name}: its schema is {schema.current}, and this version uses {schema.newest}",
                "back it up (`cmbnode backup FILE`); the node upgrades it when it starts",
            )
        else:
            yield ok("database", f"{name}, schema {schema.current}")
    except CmbError as error:
        yield wrong_because("database", error)
    except SQLAlchemyError as error:
        why = one_line(str(error.__cause__ or type(error).__name__))
        yield wrong("database", f"{name}: it does not answer ({why})", "start it, or correct database_url")
    finally:
        ledger.close()


def check_parts(settings: Settings) -> Iterator[Checkup]:
    """The parts of a running node."""
    lives = read_parts(settings.data_dir)
    stopped = read_not_running(settings.data_dir) if lives else {}
    for part, why in stopped.items():
        yield wrong(f"part {part}", why, "read the node's log")
    silent = [life for life in lives if not life.works]
    for life in silent:
        yield wrong(f"part {life.part}", f"{life.instance} has been silent for {life.age_s:.0f} s", "read its log")
    if not lives:
        yield note("parts", "the node is not running", "start it with `cmbnode up`")
    elif not stopped and not silent:
        yield ok("parts", f"running: {', '.join(sorted({life.part for life in lives}))}")


def check_routing(settings: Settings) -> Iterator[Checkup]:
    """The routing rules, the recognition rules, and the weights of every profile that a rule names."""
    from node.route.rules import load_table
    from node.settings.recognition import recognition
    from pipeline.networks.weights import read_weights
    from pipeline.profile import load_profile

    try:
        recognition(settings)
        table = load_table(settings)
    except CmbError as error:
        yield wrong_because("rules", error)
        return
    yield ok("rules", f"{len(table.rule)} routing rules ({settings.routing_file or 'those of the package'})")
    for name in dict.fromkeys(rule.profile for rule in table.rule if rule.profile is not None):
        profile = load_profile(name)
        stages = (profile.candidates, profile.classifier)
        weights = [stage.weights for stage in stages if stage is not None and stage.weights is not None]
        try:
            for one in weights:
                read_weights(one)
            hashes = ", ".join(f"{one.name} {one.sha256[:8]}…" for one in weights) or "needs no weights"
            yield ok(f"profile {profile.name}", hashes)
        except CmbError as error:
            yield wrong_because(f"profile {profile.name}", error)


def check_connections(settings: Settings) -> Iterator[Checkup]:
    """Every destination, and every PACS that studies are fetched from, each in its own way and all at the same time."""
    named = {f"destination {name}": way for name, way in settings.destinations.items()}
    if not named:
        yield note("destinations", "none is set: results go nowhere", "add [destinations.NAME]")
    for where, pacs in settings.sources.items():
        if (way := _as_destination(pacs)) is not None:
            what = "source of priors" if where == "priors" else f"source of new studies {where.removeprefix('pull.')}"
            named[what] = way
    with ThreadPoolExecutor(max(1, len(named))) as threads:
        yield from threads.map(lambda subject: _connect(subject, named[subject], settings.ae_title), named)


def _as_destination(pacs: PacsSettings) -> DestinationSettings | None:
    """A PACS as a destination of its kind: C-ECHO or a query tells whether it answers."""
    if pacs.dicom is not None:
        fields = set(DicomDestination.model_fields) & set(type(pacs.dicom).model_fields)
        return DicomDestination(**{name: getattr(pacs.dicom, name) for name in fields})
    if pacs.dicomweb is not None:
        given = {name: getattr(pacs.dicomweb, name) for name in type(pacs.dicomweb).model_fields}
        return StowDestination(kind="stow", **given)
    return None


def _connect(subject: str, way: DestinationSettings, ae_title: str) -> Checkup:
    try:
        found = check_destination(way, ae_title)
    except CmbError as error:
        return wrong_because(subject, error)
    return ok(subject, found.text) if found.answers else wrong(subject, found.text, found.do)


def check_notices(settings: Settings) -> Iterator[Checkup]:
    """Whether the webhook and the mail server answer; nobody is told anything."""
    for name, channel in open_channels(settings).items():
        try:
            yield ok(f"notices by {name}", f"{channel.address} {channel.check()}")
        except NotSentError as error:
            yield wrong(f"notices by {name}", f"{channel.address} {error}", f"check the address, and notices.{name}")
        except CmbError as error:
            yield wrong_because(f"notices by {name}", error)


def check_audit_repository(settings: Settings) -> Iterator[Checkup]:
    """Whether the audit repository answers, and what waits for it."""
    if settings.audit_repository is None:
        return
    subject, address = "audit repository", settings.audit_repository.address
    try:
        answer = SyslogRepository(settings.audit_repository).check()
    except NotReceivedError as error:
        yield wrong(subject, f"{address} {error}", "check the address, its certificate, and audit_repository")
    except CmbError as error:
        yield wrong_because(subject, error)
    else:
        yield ok(subject, f"{address} {answer}")
    yield from _audit_backlog(settings)


def _audit_backlog(settings: Settings) -> Iterator[Checkup]:
    """What the ledger keeps for the audit repository; a database that does not answer has its own line."""
    if settings.database_url is None and not (settings.data_dir / "ledger.sqlite3").is_file():
        return
    ledger = Ledger(settings.ledger_url)
    try:
        state = ledger.feed_state()
    except SQLAlchemyError:
        return
    finally:
        ledger.close()
    if state is not None and state.why and state.oldest_at is not None:
        since = state.oldest_at.astimezone(settings.zone).isoformat(timespec="minutes")
        what = f"{state.waiting} audit messages have waited since {since}; the last attempt failed: {state.why}"
        yield note("audit messages", what, "they are sent when the repository takes them again")


def check_secrets(folder: Path | None) -> Iterator[Checkup]:
    """Whether others can read the passwords."""
    if folder is None:
        return
    facts = folder.stat()
    if facts.st_mode & 0o007:
        yield note("secrets", f"every user of this machine can open {folder}", f"chmod o-rwx {folder}")
    else:
        yield ok("secrets", str(folder))

"""A backup is made while the node runs, and restored elsewhere: same rows, same files, on either database."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from node.archive import Archive
from node.cli import main
from node.ledger import Ledger
from node.ledger.copying import _tables
from node.ledger.engine import _migrate
from node.ledger.models import jobs, metadata
from node.ledger.schema import SchemaError
from node.processes.parts import RECEIVER, part_file
from node.run import backup as module
from node.run.backup import BackupError, BackupSummary, make_backup, read_contents, restore_backup
from node.run.erasing import erase_study
from pipeline.uids import derive_uid
from tests.node.conftest import empty_database
from tests.node.ledger_factory import instance, open_job, receive, settle_and_route, uid
from tests.node.seeded import Seeded, seed

pytestmark = pytest.mark.slow
STUDIES = 1000


def silent(_text: str) -> None:
    pass


def backed_up(ledger: Ledger, data_dir: Path, target: Path) -> BackupSummary:
    return make_backup(ledger, data_dir, target, silent)


def rows_of(ledger: Ledger) -> dict[str, list[Any]]:
    with ledger.engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for name, table in sorted(metadata.tables.items())
        }


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in module.FOLDERS
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """A ledger with every state, a superseded job, JSON's null beside NULL, and files in every folder."""
    made = seed(tmp_path_factory.mktemp("node"))
    first, second = made.jobs["delivered"], made.jobs["clean"]
    with made.ledger.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == first).values(superseded_by=second, state="superseded"))
        connection.execute(update(jobs).where(jobs.c.id == second).values(supersedes=first, correction={"a": None}))
    with made.ledger.engine.connect() as connection:
        for (path,) in connection.execute(text("SELECT path FROM instances UNION SELECT path FROM results")):
            file = made.data_dir / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.encode())
    (made.data_dir / "quarantine").mkdir()
    (made.data_dir / "quarantine" / "conflict.dcm").write_bytes(b"other")
    (made.data_dir / "outbox" / ".half.part").write_bytes(b"not complete")
    yield made
    made.ledger.close()


@pytest.fixture
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty database of the kind that the test names."""
    kind = getattr(request, "param", "sqlite")
    url = request.getfixturevalue("postgresql_url") if kind == "postgresql" else None
    if url:
        empty_database(url)
    ledger = Ledger(url or f"sqlite:///{tmp_path / 'restored' / 'ledger.sqlite3'}")
    yield ledger
    ledger.close()


@pytest.mark.parametrize("empty", ["sqlite", "postgresql"], indirect=True)
def test_a_backup_has_every_row_and_every_file_and_is_restored_on_either_database(
    seeded: Seeded, empty: Ledger, tmp_path: Path
) -> None:
    made = backed_up(seeded.ledger, seeded.data_dir, tmp_path / "backup.tar")
    assert made.missing == ()
    assert (tmp_path / "backup.tar").stat().st_mode & 0o077 == 0
    read = restore_backup(empty, tmp_path / "restored", tmp_path / "backup.tar", silent)
    assert read == made
    assert rows_of(empty) == rows_of(seeded.ledger)
    expected = {name: content for name, content in files_of(seeded.data_dir).items() if "/." not in name}
    assert files_of(tmp_path / "restored") == expected
    assert not [path for path in (tmp_path / "restored").rglob("*") if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("empty", ["sqlite", "postgresql"], indirect=True)
def test_a_restored_node_goes_on_with_new_numbers(seeded: Seeded, empty: Ledger, tmp_path: Path) -> None:
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "backup.tar")
    restore_backup(empty, tmp_path / "restored", tmp_path / "backup.tar", silent)
    receive(empty, "new", datetime.now(UTC))
    settle_and_route(empty, "new")
    assert open_job(empty, "new", "new").id == max(seeded.jobs.values()) + 1


def test_a_ledger_on_postgresql_is_restored_on_sqlite(seeded: Seeded, postgresql_url: str, tmp_path: Path) -> None:
    empty_database(postgresql_url)
    first, second = Ledger(postgresql_url), Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "1.tar")
    restore_backup(first, tmp_path / "first", tmp_path / "1.tar", silent)
    backed_up(first, tmp_path / "first", tmp_path / "2.tar")
    restore_backup(second, tmp_path / "second", tmp_path / "2.tar", silent)
    assert rows_of(second) == rows_of(seeded.ledger)
    first.close()
    second.close()


def test_every_file_that_a_row_names_is_there_although_studies_come_and_go(empty: Ledger, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'node' / 'ledger.sqlite3'}")
    ledger.upgrade()
    archive, stop, stored = Archive(tmp_path / "node"), threading.Event(), threading.Event()

    def come_and_go() -> None:
        number = 0
        while not stop.is_set() and number < 3000:
            words = derive_uid("busy", number), derive_uid("busy series", number), derive_uid("busy study", number)
            file = archive.store(*words, f"image {number}".encode())
            ledger.record_instance(
                instance(
                    "busy", "swi", number, datetime.now(UTC), path=file.path, size=file.size, sha256=file.sha256,
                    sop_instance_uid=words[0], series_instance_uid=words[1], study_instance_uid=words[2],
                )
            )  # fmt: skip
            ledger.release_series([words[1]], datetime.now(UTC), association="a1")
            ledger.settle_series(words[1], "quiet")
            if number % 5 == 4:
                erase_study(ledger, archive, derive_uid("busy study", number - 3), "test")
            number += 1
            if number == 20:
                stored.set()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert stored.wait(60)
        made = backed_up(ledger, tmp_path / "node", tmp_path / "backup.tar")
    finally:
        stop.set()
        thread.join()
    assert made.rows["instances"] >= 16  # 20, of which 4 were erased
    assert made.missing == ()
    restore_backup(empty, tmp_path / "restored", tmp_path / "backup.tar", silent)
    with empty.engine.connect() as connection:
        paths = list(connection.scalars(text("SELECT path FROM instances")))
    assert len(paths) == made.rows["instances"]
    assert all((tmp_path / "restored" / path).is_file() for path in paths)
    ledger.close()


def test_a_file_that_goes_away_while_it_is_copied_is_not_missed(
    seeded: Seeded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention removes a study after its rows were copied: they are copied once more."""
    copy = Ledger(f"sqlite:///{tmp_path / 'node' / 'ledger.sqlite3'}")
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "1.tar")
    restore_backup(copy, tmp_path / "node", tmp_path / "1.tar", silent)
    write, rounds = copy.write_copy, []

    def write_and_remove(out: Any) -> Any:
        made = write(out)
        rounds.append(made)
        if len(rounds) == 1:
            late = instance("late", "swi", 1, datetime.now(UTC))
            copy.record_instance(late)
            made = write(io.StringIO())  # names the file of an instance that is removed at once
            with copy.engine.begin() as connection:
                connection.execute(text("DELETE FROM instances WHERE path = :path"), {"path": late.path})
        return made

    monkeypatch.setattr(copy, "write_copy", write_and_remove)
    made = backed_up(copy, tmp_path / "node", tmp_path / "2.tar")
    assert len(rounds) == 2
    assert made.missing == ()
    copy.close()


def test_a_file_that_was_lost_is_named(seeded: Seeded, tmp_path: Path) -> None:
    copy = Ledger(f"sqlite:///{tmp_path / 'node' / 'ledger.sqlite3'}")
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "1.tar")
    restore_backup(copy, tmp_path / "node", tmp_path / "1.tar", silent)
    (tmp_path / "node" / "studies" / "queued" / "4" / "0.dcm").unlink()
    assert backed_up(copy, tmp_path / "node", tmp_path / "2.tar").missing == ("studies/queued/4/0.dcm",)
    copy.close()


@pytest.mark.parametrize("empty", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("schema", ["0001", "0004"])
def test_a_backup_of_an_old_schema_is_restored_and_upgraded(tmp_path: Path, empty: Ledger, schema: str) -> None:
    old = Ledger(f"sqlite:///{tmp_path / 'old' / 'ledger.sqlite3'}")
    fill_old(old, schema)
    made = backed_up(old, tmp_path / "old", tmp_path / "old.tar")
    assert (made.schema, made.rows["studies"]) == (schema, STUDIES)
    restore_backup(empty, tmp_path / "restored", tmp_path / "old.tar", silent)
    old.upgrade()
    assert rows_of(empty) == rows_of(old)
    assert empty.schema().current == empty.schema().newest
    assert empty.counts().studies == STUDIES
    assert len(empty.history("job", "7")) == 1
    old.close()


def fill_old(ledger: Ledger, schema: str) -> None:
    """A thousand studies, written as a database of that schema has them."""
    with ledger._migrating() as connection:
        _migrate(connection, schema)
        tables = {table.name: table for table in _tables(connection)}
        at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        rows = {
            "studies": [{"study_instance_uid": uid(n), "patient_name": f"Müller^{n}"} for n in range(STUDIES)],
            "series": [
                {"series_instance_uid": uid(n, 1), "study_instance_uid": uid(n), "state": "settled"}
                for n in range(STUDIES)
            ],
            "instances": [
                {
                    "sop_instance_uid": uid(n, 1, 1), "series_instance_uid": uid(n, 1), "sop_class_uid": "1.2",
                    "transfer_syntax_uid": "1.2.1", "path": f"studies/{n}.dcm", "sha256": "0" * 64, "position": n / 3,
                    "removed_at": at,
                }
                for n in range(STUDIES)
            ],
            "jobs": [
                {
                    "id": n + 1, "key": f"{n}", "study_instance_uid": uid(n), "destinations": ["pacs"], "warnings": [],
                    "state": "delivered", "swi_series_uid": uid(n, 1), "supersedes": n if n % 10 == 1 else None,
                }
                for n in range(STUDIES)
            ],
            "findings": [{"job_id": n + 1, "document": {"lesions": [n], "ratio": 0.1}} for n in range(STUDIES)],
            "history": [{"entity": "job", "entity_id": str(n + 1), "to_state": "delivered"} for n in range(STUDIES)],
        }  # fmt: skip
        for name, some in rows.items():
            table = tables[name]
            needed = {c.name: c.type for c in table.columns if not c.nullable and c.server_default is None}
            for row in some:
                for column, kind in needed.items():
                    if column not in row and not (column == "id" and name == "history"):
                        row[column] = at if "DATETIME" in str(kind) else 1  # type: ignore[assignment]
            connection.execute(insert(table), some)
        connection.execute(text("UPDATE jobs SET superseded_by = id + 1 WHERE id % 10 = 1"))


def test_a_backup_of_a_newer_version_is_refused(seeded: Seeded, empty: Ledger, tmp_path: Path) -> None:
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "backup.tar")
    rewrite(tmp_path / "backup.tar", lambda contents: contents | {"ledger_schema": "9999"})
    with pytest.raises(SchemaError, match="has schema 9999, and this version knows schemas up to"):
        restore_backup(empty, tmp_path / "restored", tmp_path / "backup.tar", silent)
    assert not (tmp_path / "restored").exists()


def test_a_database_of_a_newer_version_is_neither_upgraded_nor_backed_up(tmp_path: Path) -> None:
    """A downgrade: the older program leaves the data of the newer one alone."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for do in (ledger.upgrade, lambda: backed_up(ledger, tmp_path, tmp_path / "backup.tar")):
        with pytest.raises(SchemaError, match="restore a backup that was made before the upgrade"):
            do()
    assert not (tmp_path / "backup.tar").exists()
    ledger.close()


def rewrite(backup: Path, change: Any, content: bytes | None = None, name: str = module.CONTENTS) -> None:
    """Write a backup again with another table of contents, or another file in it."""
    with tarfile.open(backup) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
    with tarfile.open(backup, "w") as tar:
        for member, data in members:
            if member.name == name:
                data = json.dumps(change(json.loads(data))).encode() if content is None else content
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_a_place_that_is_not_empty_is_refused(seeded: Seeded, empty: Ledger, tmp_path: Path) -> None:
    backup = tmp_path / "backup.tar"
    backed_up(seeded.ledger, seeded.data_dir, backup)
    with pytest.raises(SchemaError, match=r"it is not empty: there are [0-9]+ rows in "):
        restore_backup(seeded.ledger, tmp_path / "restored", backup, silent)
    (tmp_path / "used" / "outbox" / "1").mkdir(parents=True)
    (tmp_path / "used" / "outbox" / "1" / "sr.dcm").write_bytes(b"mine")
    with pytest.raises(BackupError, match="it is not empty: there are files in outbox/"):
        restore_backup(empty, tmp_path / "used", backup, silent)
    assert files_of(tmp_path / "used") == {"outbox/1/sr.dcm": b"mine"}
    life = part_file(tmp_path / "running", RECEIVER, os.getpid())
    life.parent.mkdir(parents=True)
    life.touch()
    with pytest.raises(BackupError, match="a running node uses it; stop the node"):
        restore_backup(empty, tmp_path / "running", backup, silent)


def test_the_empty_tables_of_a_node_that_only_started_are_no_obstacle(
    seeded: Seeded, empty: Ledger, tmp_path: Path
) -> None:
    backed_up(seeded.ledger, seeded.data_dir, tmp_path / "backup.tar")
    empty.upgrade()
    restore_backup(empty, tmp_path / "restored", tmp_path / "backup.tar", silent)
    assert rows_of(empty) == rows_of(seeded.ledger)


@pytest.mark.parametrize("kept", [10_000, -20_000])
def test_a_backup_that_is_not_complete_is_refused(seeded: Seeded, empty: Ledger, tmp_path: Path, kept: int) -> None:
    backup = tmp_path / "backup.tar"
    backed_up(seeded.ledger, seeded.data_dir, backup)
    backup.write_bytes(backup.read_bytes()[:kept])
    with pytest.raises(BackupError, match="it is not a cmb-node backup, or is incomplete"):
        restore_backup(empty, tmp_path / "restored", backup, silent)


@pytest.mark.parametrize("name", ["studies/queued/4/0.dcm", module.ROWS])
def test_a_damaged_file_is_named_and_nothing_stays(seeded: Seeded, empty: Ledger, tmp_path: Path, name: str) -> None:
    backup = tmp_path / "backup.tar"
    backed_up(seeded.ledger, seeded.data_dir, backup)
    rewrite(backup, None, b"damaged", name)
    with pytest.raises(BackupError, match=f"{name} is damaged"):
        restore_backup(empty, tmp_path / "restored", backup, silent)
    assert files_of(tmp_path / "restored") == {}
    empty.require_empty()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "studies/../../evil", "redis/evil", "studies"])
def test_a_file_that_no_backup_contains_is_refused(seeded: Seeded, empty: Ledger, tmp_path: Path, name: str) -> None:
    backup = tmp_path / "backup.tar"
    backed_up(seeded.ledger, seeded.data_dir, backup)
    with tarfile.open(backup, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(BackupError, match="which no backup does"):
        restore_backup(empty, tmp_path / "restored", backup, silent)
    assert not (tmp_path / "evil").exists()


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(seeded: Seeded, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"mine")
    with pytest.raises(BackupError, match="this file exists; nothing was written"):
        backed_up(seeded.ledger, seeded.data_dir, tmp_path / "mine.tar")
    with pytest.raises(BackupError, match="it cannot be written"):
        backed_up(seeded.ledger, seeded.data_dir, tmp_path / "nowhere" / "backup.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tar"]


def test_the_commands(seeded: Seeded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup, there = tmp_path / "backup.tar", tmp_path / "there"
    assert main(["backup", str(backup), "--data", str(seeded.data_dir)]) == 0
    assert capsys.readouterr().out.startswith(f"{backup} is written: 8 studies, ")
    assert read_contents(backup)["missing"] == []
    assert main(["restore", str(backup), "--data", str(there), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["studies"] == 8
    assert main(["restore", str(backup), "--data", str(there)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"cmbnode: {there}: it is not empty: there are files")
    main(["audit", "--data", str(there), "--json"])
    told = [(one["action"], one["detail"]) for one in json.loads(capsys.readouterr().out)["audit"]]
    assert told[0][0] == "restored a backup"
    assert told[1] == ("made a backup", str(backup))

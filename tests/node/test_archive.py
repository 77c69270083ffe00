"""The archive: what is stored survives, nothing is overwritten, no name leads out."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.archive import (
    Archive,
    DamagedFileError,
    OutOfResourcesError,
    StoredFile,
    TooLargeError,
    UnsafeNameError,
    is_uid,
)

STUDY, SERIES, SOP = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def files_below(archive: Archive) -> list[str]:
    found = (path.relative_to(archive.root) for path in archive.root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "locks")


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2", "0", "2.25.1", "1.02.3", "1" * 64])
def test_a_uid_of_the_standard_is_taken_and_leading_zeros_too(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "1..2", "../1", "1.2/3", "1.2\n", ".1", "1.", "1" * 65, "1.2\0", "１.2", "1.2 ", "abc"]
)
def test_what_could_lead_elsewhere_is_no_uid(uid: str, archive: Archive) -> None:
    assert not is_uid(uid)
    for uids in ((uid, SERIES, STUDY), (SOP, uid, STUDY), (SOP, SERIES, uid)):
        with pytest.raises(UnsafeNameError):
            archive.store(*uids, b"bytes")
    assert files_below(archive) == []


@given(st.text(max_size=80))
def test_every_text_that_passes_as_uid_is_one_plain_file_name(value: str) -> None:
    if is_uid(value):
        assert set(value) <= set("0123456789.")
        assert value not in {".", ".."}
        assert Path(value).name == value


def test_a_stored_object_can_be_read_back(archive: Archive) -> None:
    stored = archive.store(SOP, SERIES, STUDY, [b"one ", b"two"])
    assert archive.path(stored.path).read_bytes() == b"one two"
    assert (stored.size, stored.sha256) == (7, hashlib.sha256(b"one two").hexdigest())
    assert files_below(archive) == [stored.path]


def test_the_header_is_in_the_file_but_not_in_the_digest(archive: Archive) -> None:
    with archive.incoming() as incoming:
        incoming.write_header(b"DICM")
        incoming.write(b"data")
        stored = archive.store(SOP, SERIES, STUDY, incoming)
    assert archive.path(stored.path).read_bytes() == b"DICMdata"
    assert stored.sha256 == hashlib.sha256(b"data").hexdigest()
    assert stored.size == 8


def test_the_same_object_twice_is_one_file(archive: Archive) -> None:
    assert archive.store(SOP, SERIES, STUDY, b"same") == archive.store(SOP, SERIES, STUDY, b"same")
    assert len(files_below(archive)) == 1


def test_other_bytes_under_the_same_uid_overwrite_nothing(archive: Archive) -> None:
    first = archive.store(SOP, SERIES, STUDY, b"first")
    second = archive.store(SOP, SERIES, STUDY, b"second")
    assert archive.path(first.path).read_bytes() == b"first"
    assert archive.path(second.path).read_bytes() == b"second"


def test_bytes_are_synced_before_they_get_their_name_and_the_name_after(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.store("1.9", SERIES, STUDY, b"the folders are there now")
    steps: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def fsync(file: object) -> None:
        steps.append("sync folder" if isinstance(file, int) else "sync file")
        real_sync(file)  # type: ignore[arg-type]

    def rename(source: Path, target: Path) -> Path:
        steps.append("name")
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    archive.store(SOP, SERIES, STUDY, b"bytes")
    assert steps == ["sync file", "name", "sync folder"]


def test_under_the_disk_guard_nothing_is_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", free_disk_mb=10**9)
    with pytest.raises(OutOfResourcesError, match="MB free"):
        archive.store(SOP, SERIES, STUDY, b"bytes")
    assert files_below(archive) == []


def test_a_disk_that_fills_while_an_object_arrives_leaves_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 50_000_000
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
    guarded = Archive(archive.root, free_disk_mb=20)
    with guarded.incoming() as incoming:
        incoming.write(bytes(4_000_000))
        incoming.check()
        free = 10_000_000
        for _ in range(3):
            incoming.write(bytes(4_000_000))
        assert files_below(archive) == []
        with pytest.raises(OutOfResourcesError):
            guarded.store(SOP, SERIES, STUDY, incoming)
    assert files_below(archive) == []


def test_a_full_disk_reported_by_the_system_is_the_same_refusal(archive: Archive) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from node.archive import Archive, OutOfResourcesError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Archive(Path(sys.argv[1])).store('1.2', '1.3', '1.4', bytes(5000))\n"
        "except OutOfResourcesError as error: print(error.what)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive.root)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "the disk is full\n"
    assert files_below(archive) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_object_for_which_no_file_can_be_opened_is_refused_at_its_end(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", fail)
    with archive.incoming() as incoming:
        incoming.write_header(b"header")
        incoming.write(b"content")
        with pytest.raises(OutOfResourcesError):
            archive.store(SOP, SERIES, STUDY, incoming)
    assert files_below(archive) == []


def test_a_discarded_object_is_gone(archive: Archive) -> None:
    with archive.incoming() as incoming:
        incoming.write(b"half")
        assert len(files_below(archive)) == 1
    assert files_below(archive) == []


def test_what_a_crash_left_is_removed_and_what_is_being_written_is_not(archive: Archive) -> None:
    code = (
        "import os, sys; from pathlib import Path; from node.archive import Archive\n"
        "Archive(Path(sys.argv[1])).incoming().write(b'half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(archive.root)], timeout=60, check=False).returncode == 9
    with archive.incoming() as running:
        running.write(b"still coming")
        assert len(files_below(archive)) == 2
        assert archive.clean_incoming() == 1
        archive.store(SOP, SERIES, STUDY, running)
    assert len(files_below(archive)) == 1


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "studies/../../x", "", "a\0b"])
def test_no_relative_path_leads_out(archive: Archive, relative: str) -> None:
    with pytest.raises(UnsafeNameError):
        archive.path(relative)


@pytest.mark.parametrize("name", ["..", "1/2", "", "-rf", "a" * 65, "1.2"])
def test_a_job_id_is_a_plain_name(archive: Archive, name: str) -> None:
    with pytest.raises(UnsafeNameError):
        archive.outbox(name)


def test_an_outbox_is_made_and_removed(archive: Archive) -> None:
    assert archive.outbox(7).is_dir()
    assert archive.outbox(7) == archive.root / "outbox" / "7"
    archive.remove_outbox(7)
    assert not (archive.root / "outbox" / "7").exists()


def test_small_files_of_a_result_can_outlive_the_rest(archive: Archive) -> None:
    archive.put(7, "sr.dcm", b"report")
    assert archive.put(7, "crops.zip", b"before").read_bytes() == b"before"
    kept = archive.put(7, "crops.zip", b"pictures")
    archive.remove_outbox(7, keep=("crops.zip",))
    assert files_below(archive) == ["outbox/7/crops.zip"]
    assert kept.read_bytes() == b"pictures"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 65])
def test_a_file_of_the_outbox_has_a_plain_name(archive: Archive, name: str) -> None:
    with pytest.raises(UnsafeNameError):
        archive.put(7, name, b"")


def test_removing_a_study_never_removes_an_image_that_was_just_stored(archive: Archive) -> None:
    old = archive.store(SOP, SERIES, STUDY, b"old")
    archive.store("1.9", "1.8", STUDY, b"just now, before its row")
    archive.remove(old.path)
    archive.remove_study(STUDY)
    assert len(files_below(archive)) == 1
    archive.remove(files_below(archive)[0])
    archive.remove_study(STUDY)
    assert list((archive.root / "studies").iterdir()) == []
    archive.remove_study(STUDY)


def test_what_is_kept_aside_says_why(archive: Archive) -> None:
    with archive.incoming() as incoming:
        incoming.write(b"garbage")
        kept = archive.quarantine(incoming, "no SOP Instance UID", {"calling_ae": "MODALITY"})
    note = json.loads(archive.path(kept.path).with_suffix(".json").read_text())
    assert archive.path(kept.path).read_bytes() == b"garbage"
    assert (note["why"], note["calling_ae"], note["size"]) == ("no SOP Instance UID", "MODALITY", 7)


def test_the_quarantine_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    archive = Archive(tmp_path, quarantine_files=3, quarantine_mb=1)
    kept = []
    for number in range(5):
        with archive.incoming() as incoming:
            incoming.write(b"object %d" % number)
            kept.append(archive.quarantine(incoming, "why", {}).path)
            os.utime(archive.path(kept[-1]), (number, number))
    left = [name for name in files_below(archive) if name.endswith(".dcm")]
    assert sorted(left) == sorted(kept[2:])
    assert len(files_below(archive)) == 6
    with archive.incoming() as incoming:
        incoming.write(bytes(900_000))
        large = archive.quarantine(incoming, "why", {})
    with archive.incoming() as incoming:
        incoming.write(bytes(900_001))
        larger = archive.quarantine(incoming, "why", {})
    assert [name for name in files_below(archive) if name.endswith(".dcm")] == [larger.path]
    assert large.path != larger.path


def test_the_limit_of_the_quarantine_holds_for_many_writers_at_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path, quarantine_files=3)

    def fill(writer: int) -> None:
        for number in range(40):
            with archive.incoming() as incoming:
                incoming.write(b"object %d of %d" % (number, writer))
                archive.quarantine(incoming, "why", {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, range(8)))
    names = files_below(archive)
    assert len(names) == 6
    assert {Path(name).stem for name in names if name.endswith(".dcm")} == {Path(name).stem for name in names}
    assert all(archive.path(name).stat().st_size > 0 for name in names)


def test_an_object_larger_than_the_quarantine_is_not_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path, quarantine_mb=1)
    with archive.incoming() as incoming:
        incoming.write(bytes(1_000_001))
        with pytest.raises(TooLargeError):
            archive.quarantine(incoming, "why", {})
    assert files_below(archive) == []


def stored_object(archive: Archive) -> StoredFile:
    meta = b"\x02\x00\x10\x00UI\x12\x001.2.840.10008.1.2\x00"
    with archive.incoming() as incoming:
        incoming.write_header(bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta)
        incoming.write(b"data set")
        return archive.store(SOP, SERIES, STUDY, incoming)


def test_a_stored_object_and_a_result_agree_with_their_digests(archive: Archive) -> None:
    archive.verify(stored_object(archive))
    report = archive.put(1, "sr.dcm", bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + bytes(8))
    relative = report.relative_to(archive.root).as_posix()
    archive.verify(StoredFile(relative, report.stat().st_size, hashlib.sha256(report.read_bytes()).hexdigest()))


@pytest.mark.parametrize("at", [0, 4, -1])
def test_a_changed_bit_of_the_content_is_noticed(archive: Archive, at: int) -> None:
    stored = stored_object(archive)
    content = bytearray(archive.path(stored.path).read_bytes())
    content[content.index(b"data set") + at % 8] ^= 1
    archive.path(stored.path).write_bytes(content)
    with pytest.raises(DamagedFileError, match="changed since it was stored"):
        archive.verify(stored)


@pytest.mark.parametrize("at", [130, 133, 140])
def test_damage_that_hides_where_the_content_starts_is_noticed(archive: Archive, at: int) -> None:
    stored = stored_object(archive)
    content = bytearray(archive.path(stored.path).read_bytes())
    content[at] ^= 1
    archive.path(stored.path).write_bytes(content)
    with pytest.raises(DamagedFileError):
        archive.verify(stored)


def test_a_truncated_and_a_missing_file_are_noticed(archive: Archive) -> None:
    stored = stored_object(archive)
    os.truncate(archive.path(stored.path), stored.size - 1)
    with pytest.raises(DamagedFileError, match=f"{stored.size - 1} bytes instead of {stored.size}"):
        archive.verify(stored)
    archive.remove(stored.path)
    with pytest.raises(DamagedFileError, match="missing"):
        archive.verify(stored)

"""Cohorts: planned from a file, made once, gone on with after a stop, never half there."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from training.cli import main
from training.folder_lock import alone_in
from training.simulation.anatomy import AnatomyRef
from training.simulation.cohort import Budget, Options, available_cohorts, load_cohort, run_cohorts
from training.simulation.cohort import studies as studies_module
from training.simulation.cohort.run import processes_for
from training.simulation.cohort.scan_settings import head_tasks
from training.simulation.cohort.splits import assign_splits, disjoint
from training.simulation.cohort.studies import Output
from training.simulation.protocol import Apodisation, MaskShape, PhaseFilter
from training.simulation.veins import Generator

pytestmark = pytest.mark.slow

SMALL = """
name = "small"
seed = 7
[[sets]]
name = "train"
split = "train"
studies = 2
studies_per_head = 2
fine_mm = 3.0
fov_mm = [180.0, 210.0, 132.0]
veins = { cortical = 500, deep = 60 }
lesions = { free_share = 0.0, median_count = 2.0 }
[sets.protocol]
voxel_mm = [[3.0, 3.0, 6.0]]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_a_stopped_cohort_goes_on_and_ends_the_same(small: Path, tmp_path: Path) -> None:
    cohort, said = load_cohort(str(small)), []
    out = tmp_path / "out"
    first = run_cohorts([cohort], Output(out), Options(), Budget(), said.append)
    assert (first.studies, first.new) == (2, 2)
    whole = _hashes(out)
    # As a killed run leaves it: one study missing, a half-written one beside it.
    shutil.rmtree(out / "small/train/train-0001")
    half = out / "small/train/.train-0001.partial"
    half.mkdir()
    (half / "rubbish.dcm").write_bytes(b"half a slice")
    second = run_cohorts([cohort], Output(out), Options(), Budget(), said.append)
    assert (second.studies, second.new) == (2, 1)
    assert _hashes(out) == whole
    truth = json.loads((out / "small/train/train-0000/truth.json").read_text())
    assert truth["seeds"]["cohort"] == 7
    assert truth["parameters"]["protocol"]["voxel_mm"] == [3.0, 3.0, 6.0]
    assert any("share them" in line for line in said)  # one anatomy cannot be split


def test_a_full_disk_leaves_nothing_that_looks_whole(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kw: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(studies_module, "write_arrays", full)
    cohort = load_cohort(str(small))
    with pytest.raises(InputError, match="disk is full"):
        run_cohorts([cohort], Output(tmp_path / "out", ("arrays",)), Options(limit=1), Budget(), lambda _: None)
    assert list((tmp_path / "out/small/train").iterdir()) == []


def test_studies_are_the_same_without_those_before_them(small: Path, tmp_path: Path) -> None:
    cohort = load_cohort(str(small))
    made = run_cohorts([cohort], Output(tmp_path / "one", ("arrays",)), Options(skip=1), Budget(), lambda _: None)
    assert (made.studies, made.new) == (1, 1)
    run_cohorts([cohort], Output(tmp_path / "all", ("arrays",)), Options(), Budget(), lambda _: None)
    assert _hashes(tmp_path / "one/small/train/train-0001") == _hashes(tmp_path / "all/small/train/train-0001")


def test_a_choice_that_leaves_no_study_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study is left to make"):
        run_cohorts([load_cohort(str(small))], Output(tmp_path), Options(skip=1, limit=1), Budget(), lambda _: None)
    assert list(tmp_path.glob("small/*")) == []


def test_two_runs_do_not_work_in_one_folder(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out/small"
    with alone_in(folder), pytest.raises(InputError, match="another `cmbtrain` command writes to this folder"):
        run_cohorts([load_cohort(str(small))], Output(tmp_path / "out"), Options(), Budget(), lambda _: None)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_another_version_of_the_cohort_does_not_mix_in(small: Path, tmp_path: Path) -> None:
    there = tmp_path / "out/small/train/train-0000"
    there.mkdir(parents=True)
    (there / "truth.json").write_text(json.dumps({"cohort": {"sha256": "another"}, "lesions": []}))
    with pytest.raises(InputError, match="another version"):
        run_cohorts([load_cohort(str(small))], Output(tmp_path / "out"), Options(), Budget(), lambda _: None)


@pytest.mark.parametrize("name", available_cohorts())
def test_the_bundled_cohorts_are_sound(name: str) -> None:
    cohort = load_cohort(name)
    assert cohort.name == name
    # What is trained on is varied further than what is measured on.
    training_only = cohort.description.startswith("Training only")
    assert any(s.split == "test" for s in cohort.sets) is not training_only


BLIND = {
    "blind-high": "65bea61c5ee3025655bc31cd9fec5d58d693c6fcec896c5cd3fe959aafbc79ed",
    "blind-low": "b4880e08f04c9c93c7f3a04f68e6c89ec3a4f2fe5c468354347a957b4316139c",
}


@pytest.mark.parametrize(("name", "digest"), BLIND.items())
def test_a_blind_cohort_is_never_changed(name: str, digest: str) -> None:
    assert load_cohort(name).digest == digest


@pytest.mark.parametrize("name", sorted(set(available_cohorts()) - set(BLIND)))
def test_no_other_cohort_has_what_is_kept_for_blind_tests(name: str) -> None:
    for one in load_cohort(name).sets:
        assert PhaseFilter.BUTTERWORTH not in one.protocol.filters
        assert MaskShape.TRIANGLE not in (one.protocol.masks or ())
        assert Apodisation.KAISER not in (one.protocol.apodisations or ())
        assert (one.protocol.noise_exponent or (0, 0))[0] >= 0
        assert one.short_veins is None or one.short_veins.fork_share == 0
        assert one.split == "test" or one.generators == (Generator.DRAINAGE,)
        assert one.head is None or (one.head.scale[1] < 0.99 and one.head.bend_mm[1] <= 5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("studies = 2\n", "studies = 0\n"), "studies"),
        (("split = ", "slpit = "), "split"),
        (("seed = 7", "seed = "), "not TOML"),
        (("voxel_mm = [[3.0, 3.0, 6.0]]", "snr = [30, 10]"), "smaller number first"),
    ],
)
def test_a_wrong_cohort_file_is_named(small: Path, change: tuple[str, str], complaint: str) -> None:
    small.write_text(SMALL.replace(*change))
    with pytest.raises(InputError, match=complaint):
        load_cohort(str(small))


def test_an_impossible_protocol_in_a_cohort_ends_with_status_2(small: Path, tmp_path: Path, capsys) -> None:
    timing = "timing = { echo_time_ms = 40, repetition_time_ms = 20, flip_angle_deg = 15 }"
    small.write_text(SMALL + timing + "\n")
    assert main(["simulate", "--cohort", str(small), "--out", str(tmp_path / "out")]) == 2
    assert "does not fit in a repetition time" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cohort", "no-such", "--out", "x"],
        ["--cohort", "stress", "--out", "x", "--anatomy", "/no/such/folder"],
        ["--cohort", "stress", "--out", "x", "--set", "no-such"],
        ["--cohort", "stress", "--out", "x", "--format", "jpeg"],
        ["--cohort", "stress", "--out", "x", "--memory-gb", "0.2"],
        ["--cohort", "stress"],
        [],
    ],
)
def test_bad_input_ends_with_status_2_and_one_line(arguments: list[str], capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@given(st.sets(st.text("abcdefgh0123456789", min_size=1), min_size=3, max_size=40))
def test_splits_share_no_head_and_leave_none_out(names: set[str]) -> None:
    splits = assign_splits([AnatomyRef(n) for n in sorted(names)])
    assert disjoint(splits)
    assert {a.name for refs in splits.values() for a in refs} == names
    assert all(splits.values())


def test_splits_do_not_depend_on_the_order() -> None:
    refs = [AnatomyRef(f"head{n}") for n in range(14)]
    assert assign_splits(refs) == assign_splits(refs[::-1])


def test_processes_fit_in_memory() -> None:
    cohort = load_cohort("high-resolution")
    tasks = head_tasks(cohort, cohort.sets[0], (AnatomyRef("icbm152"),))
    assert 1 <= processes_for(tasks, Budget(8, 9.6)) <= 2
    wide = load_cohort("wide")
    interpolated = head_tasks(wide, wide.sets[0], (AnatomyRef("icbm152"),))
    assert processes_for(interpolated, Budget(8, 16.0)) == 1, "images of 800 × 700 × 320 voxels need memory, too"
    with pytest.raises(InputError, match=r"needs about 10\.\d GB"):
        processes_for(interpolated, Budget(8, 6.0))


def test_workers_end_with_a_killed_parent() -> None:
    program = (
        "import multiprocessing, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from training.simulation.cohort.run import end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    pool = ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 60).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
    gone, _ = psutil.wait_procs([worker], timeout=20)
    assert gone == [worker]


@pytest.mark.parametrize(("voxel", "what"), [([2.0, 2.0, 6.0], "finer"), ([3.0, 3.0, 60.0], "four samples")])
def test_a_voxel_that_cannot_be_scanned_is_refused_before_anything_is_made(
    voxel: list[float], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "impossible.toml"
    path.write_text(SMALL.replace("[[3.0, 3.0, 6.0]]", f"[[3.0, 3.0, 6.0], {voxel}]"))
    with pytest.raises(InputError, match=what):
        load_cohort(str(path))

"""The cache: what is read back is what was put in, to 8 bits; parts are bounded; no DICOM package is needed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.networks.inputs import make_inputs
from tests.pipeline.phantom import BLEEDS, acquisition, to_ijk
from tests.training.tiny import labelled, study
from training.datasets.cache import (
    GREY_STEP,
    MEBIBYTE,
    PHASE_STEP,
    cache_study,
    find_cached,
    make_cache,
    read_study,
    write_study,
)
from training.datasets.record import LabelledStudy, Mark, Record
from training.fit.holdout import hold_out_validation
from training.folder_lock import alone_in

pytestmark = pytest.mark.slow


def test_a_study_comes_back_as_the_networks_would_see_it(tmp_path: Path) -> None:
    write_study(study(1), tmp_path / "a.npz")
    read = read_study(tmp_path / "a.npz")
    images, brain = labelled(1)
    direct, cached = make_inputs(images.acquisition, brain), make_inputs(read.acquisition(), read.brain)
    assert (direct.brain == cached.brain).all()
    assert np.abs(direct.swi - cached.swi).max() <= 2 * GREY_STEP
    assert direct.phase is not None
    assert cached.phase is not None
    assert np.abs(direct.phase - cached.phase).max() <= PHASE_STEP
    assert read.marks == images.marks
    at, cropped = images.acquisition.swi.geometry.to_ijk(images.marks[0].centre_lps_mm), read.points(read.marks)[0]
    assert np.allclose(at - direct.origin, cropped)


def test_what_is_missing_stays_missing(tmp_path: Path) -> None:
    write_study(replace(study(1), phase=None), tmp_path / "a.npz")
    read = read_study(tmp_path / "a.npz").acquisition()
    assert read.phase is None
    assert read.magnitude is None


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="is not a cached study"):
        read_study(tmp_path / "a.npz")
    with pytest.raises(InputError, match="holds no cached study"):
        find_cached([tmp_path / "other"])


def _records() -> list[Record]:
    images = acquisition()
    marks = tuple(Mark(tuple(images.swi.geometry.to_lps(to_ijk(b)).tolist())) for b in BLEEDS)  # type: ignore[arg-type]
    whole = LabelledStudy(images, marks)
    given = LabelledStudy(*(lambda pair: (pair[0].acquisition, pair[0].marks, pair[1]))(labelled(2)))

    def broken() -> LabelledStudy:
        raise InputError("no images", where="study 3")

    reads = {"whole": lambda: whole, "given": lambda: given, "broken": broken}
    return [Record(name, name, name, "train", False, read) for name, read in reads.items()]


def test_a_cache_is_made_in_parts_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    full = tmp_path / "part-000" / "old.npz"
    full.parent.mkdir()
    full.write_bytes(bytes(MEBIBYTE))
    made = make_cache(_records(), tmp_path, part_mb=1, say=said.append)
    assert [p.stem for p in made] == ["whole", "given"]
    assert "left out: study 3: no images" in said[2]
    assert {p.parent.name for p in made} == {"part-001"}, "the first part is full"
    written = {p: p.stat().st_mtime_ns for p in made}
    assert make_cache(_records(), tmp_path, part_mb=1, say=said.append) == made
    assert written == {p: p.stat().st_mtime_ns for p in made}
    assert find_cached([p.parent for p in made]) == sorted(made, key=lambda p: p.name)
    brain = read_study(made[0]).brain
    points = np.rint(read_study(made[0]).points(_records()[0].read().marks)).astype(int)
    assert brain[tuple(points[:, ::-1].T)].all(), "the extracted brain holds the bleeds"


def test_two_commands_do_not_write_one_cache(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(InputError, match="another `cmbtrain` command writes to this folder"):
        make_cache(_records(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_heads_are_kept_apart() -> None:
    own = [study(1), study(2, "validation"), study(3, "test")]
    split = hold_out_validation(own, 0.2)
    assert [s.name for s in split.train] == ["s1"]
    assert [s.name for s in split.validation] == ["s2"]
    leaking = [*own, replace(study(4, "validation"), anatomy="a1")]
    with pytest.raises(InputError, match="anatomy a1 is in training and in validation"):
        hold_out_validation(leaking, 0.2)
    with pytest.raises(InputError, match="no study to validate with"):
        hold_out_validation([study(1)], 0.2)


def test_studies_without_a_split_are_dealt_by_head() -> None:
    own = [replace(study(n, None), anatomy=f"a{n // 2}") for n in range(10)]
    split = hold_out_validation(own, 0.4)
    heads = [{s.anatomy for s in side} for side in split]
    assert len(heads[1]) == 2
    assert not heads[0] & heads[1]
    assert hold_out_validation(list(reversed(own)), 0.4).validation[::-1] == split.validation


def test_training_from_a_cache_needs_no_dicom_package() -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydicom", "highdicom", "SimpleITK", "pynetdicom", "nibabel", "node"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import training.fit.run, training.fit.export, training.datasets.cache, training.commands.fitting
from pipeline.profile import available_profiles
for profile in available_profiles():
    profile.candidates.module, profile.classifier and profile.classifier.module
import training.cli
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_coarser_steps_take_less_room_and_stay_near(tmp_path: Path) -> None:
    images, brain = labelled(1)
    record = Record("a", "a", "a", None, True, lambda: images)
    fine, coarse = (cache_study(record, images, brain, coarse=c) for c in (1, 4))
    for name, one in (("fine", fine), ("coarse", coarse)):
        write_study(one, tmp_path / f"{name}.npz")
    assert (tmp_path / "coarse.npz").stat().st_size < 0.7 * (tmp_path / "fine.npz").stat().st_size
    assert np.abs(fine.swi.astype(int) - coarse.swi).max() <= 2
    assert fine.phase is not None
    assert coarse.phase is not None
    assert np.abs(fine.phase.astype(int) - coarse.phase).max() <= 2

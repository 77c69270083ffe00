"""The pictures of a result: every lesion from near, every slice, in two files that are read one picture at a time."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.findings import ChangeOverTime, PriorLesion, RejectedLesion
from pipeline.geometry import Geometry
from pipeline.pictures import CROPS, SLICES, PictureArchive, make_pictures, write_picture_archive
from pipeline.pictures.crops import STRIP, TILE
from pipeline.results.windows import phase_window, swi_window
from tests.pipeline.results.studies import Detection, simulate


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Detection:
    """Four lesions, one that a person rejected, one of an earlier scan that is no longer seen."""
    made = simulate(tmp_path_factory.mktemp("study"), 4)
    first = made.findings.lesions[0]
    facts = {name: getattr(first, name) for name in ("tracking_uid", "centroid_lps_mm", "diameter_mm", "probability")}
    change = ChangeOverTime(
        "1.2.3", "20250102", None, True, no_longer_seen=(PriorLesion(**facts, certainty=first.certainty),)
    )
    rejected = (RejectedLesion(id=9, **facts, certainty=first.certainty),)
    return replace(made, findings=replace(made.findings, change=change, rejected=rejected))


@pytest.fixture(scope="module")
def folder(detection: Detection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for name, content in make_pictures(detection).items():  # type: ignore[arg-type]
        (made / name).write_bytes(content)
    return made


def picture(book: PictureArchive, name: str) -> Image.Image:
    content = book.picture(name)
    assert content is not None, name
    image = Image.open(BytesIO(content))
    assert image.format == "JPEG"
    return image


def test_every_lesion_is_shown_in_every_view(folder: Path, detection: Detection) -> None:
    with PictureArchive(folder / CROPS) as book:
        assert book.index["views"] == ["swi", "phase", "mip"]
        names = [*(str(lesion.id) for lesion in detection.findings.lesions), "rejected-1", "gone-1"]
        for name in names:
            for view in book.index["views"]:
                assert picture(book, f"{name}-{view}.jpg").size == STRIP
        assert book.picture("5-swi.jpg") is None


def test_the_bleed_is_dark_in_the_middle_of_each_plane(folder: Path, detection: Detection) -> None:
    with PictureArchive(folder / CROPS) as book:
        for lesion in detection.findings.lesions:
            for view in ("swi", "mip"):
                strip = np.asarray(picture(book, f"{lesion.id}-{view}.jpg").convert("L"))
                for n in range(3):
                    middle = n * (TILE + 2) + TILE // 2
                    assert strip[TILE // 2 - 2 : TILE // 2 + 3, middle - 2 : middle + 3].mean() < 60
                assert np.median(strip) > 80
            phase = np.asarray(picture(book, f"{lesion.id}-phase.jpg").convert("L"))
            assert phase[TILE // 2, TILE // 2] > np.median(phase)  # paramagnetic is bright


def test_the_index_says_what_a_pacs_calls_the_slice_of_a_lesion(folder: Path, detection: Detection) -> None:
    slices = detection.acquisition.swi.geometry.shape[0]  # the number of the lowest one: they come from above
    with PictureArchive(folder / CROPS) as book:
        assert book.index["slices"] == {
            lesion.tracking_uid: slices - lesion.voxel_ijk[2] for lesion in detection.findings.lesions
        }


def test_slices_are_shown_as_they_are_with_their_grid(folder: Path, detection: Detection) -> None:
    geometry = detection.acquisition.swi.geometry
    with PictureArchive(folder / SLICES) as book:
        index = book.index
        kept = Geometry(tuple(index["shape"]), np.array(index["affine"]))
        assert kept.matches(geometry, 1e-9)
        assert index["numbers"] == list(range(geometry.shape[0], 0, -1))
        assert index["edges"] == ["R", "L", "A", "P"]
        assert index["views"] == ["swi", "phase"]
        for lesion in detection.findings.lesions:
            i, j, k = lesion.voxel_ijk
            image = picture(book, f"swi-{k}.jpg")
            assert image.size == (geometry.shape[2], geometry.shape[1])
            assert np.asarray(image)[j, i] < 60
        assert book.picture(f"swi-{geometry.shape[0]}.jpg") is None


def test_without_phase_there_is_none_to_show(tmp_path: Path) -> None:
    for name, content in make_pictures(simulate(tmp_path, 1, phase=False)).items():  # type: ignore[arg-type]
        (tmp_path / name).write_bytes(content)
    with PictureArchive(tmp_path / CROPS) as crops, PictureArchive(tmp_path / SLICES) as slices:
        assert (crops.index["views"], slices.index["views"]) == (["swi", "mip"], ["swi"])
        assert slices.picture("phase-0.jpg") is None


def test_the_same_detection_makes_the_same_bytes(detection: Detection, folder: Path) -> None:
    again: Any = make_pictures(detection)  # type: ignore[arg-type]
    assert {name: (folder / name).read_bytes() for name in again} == again


def test_the_window_of_the_phase_is_even_about_zero_and_never_wider_than_the_circle() -> None:
    rng = np.random.default_rng(1)
    swi = np.full((8, 8, 8), 500, np.float32)
    for spread in (0.001, 0.2, 30.0):
        window = phase_window(rng.normal(0, spread, swi.shape).astype(np.float32), swi)
        assert window.low == -window.high
        assert 0.1 <= window.high <= np.pi


def test_an_image_of_nothing_has_a_window_too() -> None:
    window = swi_window(np.zeros((4, 4, 4), np.float32))
    assert window.high > window.low
    assert not np.asarray(window.grey(np.zeros((4, 4), np.float32))).any()


@pytest.mark.parametrize("content", [None, b"", b"no archive", write_picture_archive({}, {"a.jpg": b"x"})[:60]])
def test_a_file_that_is_gone_or_broken_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / CROPS
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError):
        PictureArchive(path)

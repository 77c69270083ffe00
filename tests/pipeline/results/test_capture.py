"""The capture shows a reader the result in any viewer."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from pipeline.findings import Certainty, Lesion
from pipeline.results.colours import COLOURS, NEW_COLOURS
from pipeline.results.context import ResultContext
from pipeline.results.sc.capture import make_capture
from pipeline.results.sc.montage import HEIGHT, WIDTH, draw_pages, montage
from pipeline.results.sc.panels import BACKGROUND, SliceRenderer, _overlap, direction_letter
from pipeline.results.sc.sidebar import Sidebar
from pipeline.results.source import read_planes

from .conftest import Make
from .studies import CREATED, KEY, Detection, follow_up, verified

pytestmark = pytest.mark.slow


def coloured(image: np.ndarray, certainty: Certainty) -> np.ndarray:
    return (np.abs(image.astype(int) - COLOURS[certainty]) < 12).all(axis=-1)


def test_few_lesions_make_one_plain_secondary_capture(detection_of: Make) -> None:
    capture = make_capture(ResultContext.of(detection_of(), KEY, CREATED))
    assert capture.SOPClassUID == SecondaryCaptureImageStorage
    assert capture.pixel_array.shape == (HEIGHT, WIDTH, 3)
    assert capture.BurnedInAnnotation == "NO"
    np.testing.assert_array_equal(capture.pixel_array, np.asarray(montage(detection_of())))


def test_many_lesions_make_pages_of_one_multi_frame_capture(detection_of: Make) -> None:
    detection = detection_of(lesions=60)
    capture = make_capture(ResultContext.of(detection, KEY, CREATED))
    assert capture.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert list(capture.PageNumberVector) == list(range(1, capture.NumberOfFrames + 1))
    assert capture.pixel_array.shape == (capture.NumberOfFrames, HEIGHT, WIDTH, 3)
    assert montage(detection).size == (WIDTH, HEIGHT * capture.NumberOfFrames)


def test_a_study_without_lesions_shows_slices_and_no_ring(detection_of: Make) -> None:
    page = np.asarray(montage(detection_of(lesions=0)))
    assert page[:, 520:].mean() > 20
    assert not any(coloured(page, certainty).any() for certainty in Certainty)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_the_ring_lies_around_the_lesion_and_leaves_it_visible(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    for lesion in detection.findings.lesions:
        _, _, k = lesion.voxel_ijk
        panel = np.asarray(pictures.panel(k, [replace(lesion, id=1)], (600, 800)))
        bare = np.asarray(pictures.panel(k, [], (600, 800)))
        drawn = np.argwhere((panel != bare).any(axis=-1))
        ring = np.argwhere(coloured(panel, lesion.certainty))
        crop, (di, dj, _) = pictures.crop, detection.acquisition.swi.geometry.spacing
        width, height = crop.size_mm(detection.acquisition.swi.geometry)
        scale = min(600 / width, 800 / height)
        x = (600 - width * scale) / 2 + (lesion.voxel_ijk[0] + 0.5 - crop.left) * di * scale
        y = (800 - height * scale) / 2 + (lesion.voxel_ijk[1] + 0.5 - crop.top) * dj * scale
        distance = np.hypot(*(drawn - [y, x]).T)
        assert distance.min() > lesion.diameter_mm / 2 * scale
        circle = ring[np.hypot(*(ring - [y, x]).T) < (lesion.diameter_mm / 2 + 4) * scale]
        np.testing.assert_allclose(circle.mean(axis=0), [y, x], atol=0.8 * scale)


def test_every_lesion_is_shown_and_listed_once_even_on_one_crowded_slice(
    detection_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = detection_of(lesions=60)
    crowded = tuple(replace(x, voxel_ijk=(*x.voxel_ijk[:2], 12)) for x in whole.findings.lesions)
    detection = Detection(replace(whole.findings, lesions=crowded), whole.labels, whole.acquisition)
    shown: list[int] = []
    panel = SliceRenderer.panel
    monkeypatch.setattr(
        SliceRenderer,
        "panel",
        lambda self, k, found, size: shown.extend(x.id for x in found) or panel(self, k, found, size),
    )
    pages = draw_pages(detection, tuple(range(1, 25)))
    assert sorted(shown) == list(range(1, 61))
    assert {page.size for page in pages} == {(WIDTH, HEIGHT)}
    assert len(pages) == 4


def test_slices_are_called_by_the_number_a_pacs_shows(detection_of: Make) -> None:
    classic = read_planes(detection_of().acquisition.swi)
    assert [plane.number for plane in classic] == list(range(24, 0, -1))  # written from the last slice to the first
    interleaved = read_planes(detection_of(kind="interleaved").acquisition.swi)
    assert [plane.number for plane in interleaved] == list(range(1, 48, 2))


def test_slices_are_counted_when_their_numbers_say_nothing(detection_of: Make) -> None:
    planes = read_planes(detection_of(tags={"InstanceNumber": 1}).acquisition.swi)
    assert [plane.number for plane in planes] == list(range(1, 25))


def test_long_warnings_and_odd_letters_stay_inside_the_page(detection_of: Make) -> None:
    warnings = tuple(f"Warnung {n}: größer als {'x' * 90} — 体 " + "und so weiter " * 20 for n in range(9))
    quiet, loud = np.asarray(montage(detection_of())), np.asarray(montage(detection_of(warnings=warnings)))
    assert loud.shape == quiet.shape
    np.testing.assert_array_equal(loud[:600, 520:], quiet[:600, 520:])  # below, close-ups may take what room there is
    np.testing.assert_array_equal(loud[:300], quiet[:300])


@pytest.mark.parametrize(
    ("vector", "letter"), [((1, 0, 0), "L"), ((-0.9, 0.3, 0), "R"), ((0, 0.8, -0.2), "P"), ((0, 0, 1), "H")]
)
def test_directions_are_named_in_patient_terms(vector: tuple[float, ...], letter: str) -> None:
    assert direction_letter(np.array(vector)) == letter


@pytest.mark.parametrize("warnings", [0, 3, 12])
@pytest.mark.parametrize("lesions", [1, 60])
def test_table_and_notes_never_meet(detection_of: Make, warnings: int, lesions: int) -> None:
    said = tuple(f"Warning {n} " + "of some length " * 6 for n in range(warnings))
    detection = verified(follow_up(detection_of(lesions=lesions, regions=True)))
    detection = replace(detection, findings=replace(detection.findings, warnings=said))
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    sidebar = Sidebar(detection.findings, pictures, HEIGHT, replaces=True)
    assert sidebar.rows >= 4
    page = Image.new("RGB", (WIDTH, HEIGHT))
    _, top, _, bottom = sidebar.draw(page, detection.findings.lesions[: sidebar.rows])
    assert top <= bottom


@pytest.mark.parametrize("lesions", [0, 1, 7, 40])
def test_the_corners_hold_no_text(detection_of: Make, lesions: int) -> None:
    """A viewer writes there: 90 pixels at top and bottom of the left column, and of the page's right edge."""
    page = np.asarray(montage(detection_of(lesions=lesions, regions=True)))
    for top in range(0, len(page), HEIGHT):
        left = page[top : top + HEIGHT, :470]
        assert (left[:86] == BACKGROUND).all()
        assert (left[-86:] == BACKGROUND).all()


def test_nothing_is_written_over_an_added_microbleed_in_the_table(
    detection_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection = verified(follow_up(detection_of(lesions=7, regions=True)))
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    boxes: list[tuple[float, float, float, float]] = []
    text = ImageDraw.ImageDraw.text

    def note(self: ImageDraw.ImageDraw, place: tuple[float, float], words: str, **options: Any) -> None:
        if words:
            boxes.append(self.textbbox(place, words, font=options["font"], anchor=options.get("anchor")))
        text(self, place, words, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    page = Image.new("RGB", (WIDTH, HEIGHT))
    sidebar = Sidebar(detection.findings, pictures, HEIGHT, replaces=True)
    room = sidebar.draw(page, detection.findings.lesions)
    sidebar.draw_notes(page, room[1], "page 1 of 2")
    assert not [(a, b) for a, b in combinations(boxes, 2) if _overlap(a, b)]


def test_a_label_covers_no_other_text(detection_of: Make) -> None:
    detection = detection_of()
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    lesion = detection.findings.lesions[0]
    right = pictures.volume.geometry.to_lps(
        (pictures.crop.right - 9, (pictures.crop.top + pictures.crop.bottom) / 2, 12)
    )
    at_the_letter = replace(lesion, centroid_lps_mm=tuple(right.tolist()))
    bare, ringed = (np.asarray(pictures.panel(12, found, (250, 300))) for found in ([], [at_the_letter]))
    letter = np.s_[140:160, 236:249]  # "L" at the edge
    lit = (bare[letter] > 200).all(axis=-1)
    assert lit.any()
    np.testing.assert_array_equal(ringed[letter][lit], bare[letter][lit])


def test_a_follow_up_names_what_is_new_and_a_verified_result_its_reader(detection_of: Make) -> None:
    detection = verified(follow_up(detection_of(lesions=7, regions=True)))
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    lines = " ".join(text for text, _ in Sidebar(detection.findings, pictures, HEIGHT, replaces=True).headlines)
    for words in (
        "Pattern: mixed",
        "2 new, 4 stable, 1 no longer seen",
        "mild",
        "Verified by Jurgen Muller",
        "1 rejected by the reader, 1 added by the reader",
        "Replaces",
    ):
        assert words in lines
    page = np.asarray(montage(detection))
    assert (np.abs(page.astype(int) - NEW_COLOURS[Certainty.DEFINITE]) < 12).all(axis=-1).any()


def test_a_close_up_shows_the_slice_and_the_darkest_of_the_slab(detection_of: Make) -> None:
    detection = detection_of()
    pictures = SliceRenderer.of(detection.acquisition.swi, detection.findings.lesions, tuple(range(1, 25)))
    for lesion in detection.findings.lesions:
        pair = np.asarray(pictures.close_up(lesion, 120).convert("L")).astype(int)
        assert pair.shape == (120, 242)
        alone, projected = pair[30:90, 30:90], pair[30:90, 152:212]
        assert alone[30, 30] < 60
        assert projected.mean() < alone.mean()


@pytest.mark.parametrize("warnings", [0, 3])
def test_seven_bleeds_all_have_a_close_up_even_below_long_notes(
    detection_of: Make, warnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []
    close_up = SliceRenderer.close_up

    def noted(self: SliceRenderer, lesion: Lesion, size: int) -> Image.Image:
        drawn.append((lesion.id, size))
        return close_up(self, lesion, size)

    monkeypatch.setattr(SliceRenderer, "close_up", noted)
    said = tuple(f"Warning {n} " + "of some length " * 6 for n in range(warnings))
    detection = follow_up(detection_of(lesions=7, regions=True, warnings=said))
    montage(detection)
    assert sorted(n for n, _ in drawn) == sorted(one.id for one in detection.findings.lesions)
    assert min(size for _, size in drawn) >= 48, "pixels, or a bleed is not to be told from a vein"

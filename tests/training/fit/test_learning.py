"""What networks learn from: targets at the marks, losses that fall towards them, augmentation that keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.candidates import Candidate
from pipeline.errors import InputError
from pipeline.networks.context import CLASSES
from pipeline.networks.heatmap import KINDS
from pipeline.networks.inputs import Inputs
from pipeline.networks.yolo import ANCHORS, YoloNet
from pipeline.profile import load_profile
from tests.training.tiny import study
from training.datasets.mark_kinds import MISTAKE, REJECTED
from training.datasets.record import Mark
from training.fit.augmentation import augment_volumes, vary_one_of_six, vary_slice
from training.fit.calibration import fit_calibration
from training.fit.classifier import sample_weights
from training.fit.config import Augmentation, MiningConfig, StageConfig, load_config
from training.fit.holdout import Holdout
from training.fit.losses import classifier_loss, heatmap_loss, yolo_loss
from training.fit.mining import SKIP, add_marks, name_candidates
from training.fit.mistakes import mark_mistakes
from training.fit.reweighting import reweight
from training.fit.samples import CropDataset, GridStudy, SamplePlaces, SliceDataset, on_grid
from training.fit.targets import (
    NO_POINT,
    NOTHING,
    UNKNOWN,
    UNSEEN,
    boxes_of_slice,
    draw_heatmaps,
    fit_anchors,
    kind_of,
)
from training.fit.training_run import TrainingRun

HERE = (0.0, 0.0, 0.0)
STILL = Augmentation(rotate_deg=0, scale=0, shift_mm=0, contrast=0, brightness=0, noise=0, phase_scale=0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def test_every_kind_of_mark_has_its_target() -> None:
    named = {
        (kind, visible): kind_of(Mark(HERE, kind, visible=visible))
        for kind in ("bleed", "calcification", "cavernoma", "null")
        for visible in (True, False)
    }
    assert named[("bleed", True)] == 0
    assert named[("bleed", False)] == UNSEEN
    assert named[("cavernoma", True)] == KINDS.index("other")
    assert {named[("null", True)], named[("null", False)], named[("calcification", False)]} == {NO_POINT}


def _maps(points: list[list[float]], kinds: list[int]) -> Tensor:
    step = torch.tensor([2.0, 1.0, 1.0])
    return draw_heatmaps(torch.tensor([points]), torch.tensor([kinds]), (6, 12, 12), step, 1.2)


def test_a_peak_is_one_at_its_centre_and_in_its_own_map() -> None:
    maps = _maps([[3.0, 8.0, 12.0], [1.0, 20.0, 4.0], [0.0, 0.0, 0.0]], [0, 1, NO_POINT])
    assert maps.shape == (1, len(KINDS) + 1, 6, 12, 12)
    assert (maps[0, 0] == 1).nonzero().tolist() == [[3, 4, 6]]
    assert (maps[0, 1] == 1).nonzero().tolist() == [[1, 10, 2]]
    assert maps[0, 2:].sum() == 0
    assert maps[0, 0, 4, 4, 6] == pytest.approx(np.exp(-((2 / 1.2) ** 2) / 2), rel=1e-4), "2 mm away"


def test_the_heat_map_loss_is_least_where_the_marks_are() -> None:
    maps = _maps([[3.0, 8.0, 12.0], [1.0, 20.0, 4.0]], [0, UNSEEN])
    known = torch.tensor([True])

    def loss(at: tuple[int, int, int] | None) -> float:
        logits = torch.full((1, len(KINDS), 6, 12, 12), -5.0)
        if at is not None:
            logits[(0, 0, *at)] = 5.0
        return float(heatmap_loss(logits, maps, known))

    found, missed, wrong = loss((3, 4, 6)), loss(None), loss((5, 1, 1))
    assert found < 0.1 * missed < wrong
    assert loss((1, 10, 2)) < missed + 0.05, "a hidden bleed is not punished"


def test_unmarked_mimics_do_not_count() -> None:
    maps = _maps([[3.0, 8.0, 12.0]], [1])
    logits = torch.zeros(1, len(KINDS), 6, 12, 12, requires_grad=True)
    heatmap_loss(logits, maps, torch.tensor([False])).backward()
    assert logits.grad is not None
    assert logits.grad[:, 1:].abs().sum() == 0
    assert logits.grad[:, 0].abs().sum() > 0


def test_a_place_of_unknown_kind_is_only_asked_to_be_no_bleed() -> None:
    logits = torch.zeros(1, len(CLASSES), requires_grad=True)
    classifier_loss(logits, torch.tensor([UNKNOWN]), 0, 1.0).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0
    assert len({round(v, 6) for v in logits.grad[0, 1:].tolist()}) == 1
    weighted = [
        float(classifier_loss(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), 1, w)) for w in (1.0, 5.0)
    ]
    assert weighted[1] > weighted[0], "a missed bleed costs more"


def test_a_slice_shows_the_bleeds_it_cuts() -> None:
    marks = [Mark(HERE, diameter_mm=4.0), Mark(HERE, diameter_mm=1.0)]
    points = np.array([[10.0, 20.0, 5.2], [30.0, 30.0, 7.0]])
    assert len(boxes_of_slice(points, marks, 5, 2.0, 0.5)) == 1
    assert len(boxes_of_slice(points, marks, 6, 2.0, 0.5)) == 1
    assert len(boxes_of_slice(points, marks, 7, 2.0, 0.5)) == 1
    assert len(boxes_of_slice(points, marks, 9, 2.0, 0.5)) == 0
    assert boxes_of_slice(points, marks, 5, 2.0, 0.5)[0].tolist() == [4.5, 14.5, 16.5, 26.5]


def test_anchors_are_fitted_to_the_boxes() -> None:
    sides = np.repeat([6.0, 8.0, 10.0, 14.0, 20.0], 20)
    assert [w for w, _ in fit_anchors(sides)] == pytest.approx([6, 8, 10, 14, 20])
    assert len(fit_anchors(np.array([7.0]))) == ANCHORS
    with pytest.raises(ValueError, match="no box"):
        fit_anchors(np.array([]))


def test_the_yolo_loss_falls_to_nothing_at_the_right_answer() -> None:
    network = YoloNet(2, 0.02, 16)
    boxes = [torch.tensor([[18.0, 20.0, 26.0, 28.0]]), torch.empty(0, 4)]
    raw = torch.zeros(2, ANCHORS, 5, 4, 4, requires_grad=True)
    optimiser = torch.optim.Adam([raw], 0.3)
    first = None
    for _ in range(60):
        loss = yolo_loss(network, raw, boxes)
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.01 * first
    decoded = network.decode(raw.detach())
    best = decoded.confidence[0].flatten().argmax()
    assert decoded.boxes[0].reshape(-1, 4)[best].tolist() == pytest.approx([18, 20, 26, 28], abs=0.5)
    assert decoded.confidence[1].max() < 0.2


def test_points_move_with_the_image() -> None:
    """A bright dot is still at its point after it was mirrored, turned and zoomed."""
    images, points = torch.zeros(16, 1, 9, 33, 33), torch.zeros(16, 1, 3)
    for n in range(16):
        at = (2 + n % 5, 10 + n % 7, 20 - n % 9)
        images[(n, 0, *at)] = 1
        points[n, 0] = torch.tensor(at)
    images = torch.nn.functional.avg_pool3d(images, 3, 1, 1)
    settings = STILL.model_copy(update={"rotate_deg": 30.0, "scale": 0.2})
    moved, at_moved = augment_volumes(images, ("brain",), settings, 0.5, points)
    assert at_moved is not None
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in moved.shape[2:]), indexing="ij")
    for image, (point,) in zip(moved[:, 0], at_moved, strict=True):
        centre = [float((a * image).sum() / image.sum()) for a in axes]
        assert centre == pytest.approx(point.tolist(), abs=0.3)
    assert (at_moved != points).any()


def test_phase_and_magnitude_are_lost_in_the_share_that_is_set() -> None:
    names = ("swi", "cosine", "sine", "magnitude")
    images = torch.rand(400, 4, 2, 4, 4) + 0.1
    settings = STILL.model_copy(update={"no_phase": 0.25, "no_magnitude": 0.5})
    varied, _ = augment_volumes(images, names, settings, 0.5)
    gone = (varied.abs().amax((2, 3, 4)) == 0).float().mean(0)
    assert gone.tolist() == pytest.approx([0, 0.25, 0.25, 0.5], abs=0.08)


def test_an_swi_is_made_again_from_magnitude_and_phase_where_both_are_there() -> None:
    torch.manual_seed(2)
    names = ("swi", "cosine", "sine", "magnitude", "brain")
    phase = torch.zeros(200, 4, 24, 24)
    phase[:, 1:3, 10:13, 10:13] = 1.5
    images = torch.stack([torch.full_like(phase, 0.9), phase.cos(), phase.sin(), torch.ones_like(phase), phase], 1)
    images[150:, 3] = 0
    made = reweight(images.clone(), names, 1.0)
    assert (made[:150, 0, 2, 11, 11] < 0.97).all(), "blood is dark"
    assert made[:150, 0, 2, 11, 11].std() > 0.1, "by another mask in every sample"
    assert (made[:150, 0, 0, 2, 2] > 0.7).all(), "tissue is not"
    assert torch.equal(made[150:], images[150:]), "without a magnitude nothing can be made"
    assert torch.equal(reweight(images[:, :3].clone(), names[:3], 1.0), images[:, :3])
    assert torch.equal(reweight(images.clone(), names, 0.0), images)


def test_the_samples_of_the_classifier_are_balanced_by_kind_and_small_microbleeds_weigh_more() -> None:
    kinds = np.array([0, 0, 1, 2, 2, 2, 4, 4, 4, 4])
    sizes = np.array([1.5, 3.0, *[np.inf] * 8])
    stage = StageConfig(epochs=1, steps=1, batch=1, learning_rate=1, positive_share=0.4, balance=1.0)
    weights = sample_weights(kinds, sizes, stage)
    assert weights.sum() == pytest.approx(1)
    assert weights[:2] == pytest.approx([0.4 * 2 / 3, 0.4 / 3])
    assert [weights[kinds == kind].sum() for kind in (1, 2, 4)] == pytest.approx([0.2] * 3)
    as_they_come = sample_weights(kinds, sizes, stage.model_copy(update={"balance": 0.0}))
    assert as_they_come[2:] == pytest.approx(0.6 / 8)


def test_none_changes_nothing() -> None:
    images = torch.rand(2, 1, 2, 4, 4)
    same, _ = augment_volumes(images, ("swi",), Augmentation(kind="none"), 0.5)
    assert same is images


def test_each_image_becomes_one_of_six_drawn_evenly() -> None:
    torch.manual_seed(4)
    image = torch.rand(3, 24, 24)
    many = vary_one_of_six(image.repeat(600, 1, 1, 1))
    assert many.shape == (600, 3, 24, 24)
    mirrored = [(many == version).all((1, 2, 3)) for version in (image, image.flip(-1), image.flip(-2))]
    blank = (many[:, :, 0, 0] == 0).all(1)  # turning leaves the corners empty
    blurred = ~blank & (many.std((1, 2, 3)) < 0.99 * image.std())
    counts = [int(kind.sum()) for kind in (*mirrored, blank, blurred)]
    assert counts[:3] == pytest.approx([100] * 3, abs=35)
    assert counts[3] == pytest.approx(200, abs=45), "by −30° and by +30°"
    assert counts[4] == pytest.approx(100, abs=35)


def test_a_slice_keeps_its_boxes_on_their_bleeds() -> None:
    settings = STILL.model_copy(update={"rotate_deg": 20.0, "scale": 0.2})
    for _ in range(8):
        image = torch.zeros(2, 48, 40)
        image[0, 20:23, 12:15] = 1
        varied, boxes = vary_slice(image, torch.tensor([[11.0, 19.0, 16.0, 24.0]]), settings, 0.0)
        (x1, y1, x2, y2) = boxes[0].tolist()
        rows, columns = torch.nonzero(varied[0] > 0.3, as_tuple=True)
        assert (x2 - x1, y2 - y1) == pytest.approx((5, 5), abs=1e-3)
        assert float(columns.float().mean()) + 0.5 == pytest.approx((x1 + x2) / 2, abs=1.2)
        assert float(rows.float().mean()) + 0.5 == pytest.approx((y1 + y2) / 2, abs=1.2)


def test_crops_hold_the_marks_they_were_drawn_for() -> None:
    config = StageConfig(
        epochs=1, steps=4, batch=5, learning_rate=1, crop=(8, 32, 32), positive_share=0.98, mimic_share=0.01
    )
    crops = CropDataset([on_grid(study(n), (1.0, 1.0, 2.0), ("swi",)) for n in range(2)], config)
    assert len(crops) == 20
    dark = []
    for n in range(10):
        sample = crops[n]
        assert sample["image"].shape == (1, 8, 32, 32)
        inside = [p for p, kind in zip(sample["points"], sample["kinds"], strict=True) if kind == 0]
        assert inside
        k, j, i = inside[0].round().long().tolist()
        if 0 <= k < 8 and 0 <= j < 32 and 0 <= i < 32:
            dark.append(float(sample["image"][0, k, j, i]))
    assert np.mean(dark) < 0.5


def test_mimics_are_drawn_by_kind_and_small_microbleeds_more_often() -> None:
    torch.manual_seed(3)
    whole = on_grid(study(1), (1.0, 1.0, 2.0), ("swi",))
    kinds = ["bleed", "bleed", "vein", "vein", "vein", "vein", "vein", "vein", "iron"]
    marks = tuple(replace(whole.marks[0], kind=k, diameter_mm=1.0 if n == 0 else 4.0) for n, k in enumerate(kinds))
    points = np.arange(27.0).reshape(9, 3)
    config = StageConfig(epochs=1, steps=1, batch=1, learning_rate=1, positive_share=0.5, mimic_share=0.49)
    places = SamplePlaces([GridStudy(whole.values, marks, points, whole.brain, whole.step_mm, True)], config)
    drawn = [places.draw()[1] for _ in range(3000)]
    share = [float(np.mean([(d == p).all() for d in drawn])) for p in points]
    assert share[0] == pytest.approx(2 * share[1], rel=0.2)
    assert sum(share[2:8]) == pytest.approx(share[8], rel=0.2), "six veins as often as one deposit of iron"


def test_mistakes_of_the_detector_it_starts_from_are_drawn_and_are_no_target() -> None:
    whole = on_grid(study(1), (1.0, 1.0, 2.0), ("swi",))
    marks = (whole.marks[0], replace(whole.marks[0], kind=MISTAKE))
    points = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    config = StageConfig(
        epochs=1, steps=1, batch=1, learning_rate=1, positive_share=0.5, mimic_share=0.0, mistake_share=0.3
    )
    places = SamplePlaces([GridStudy(whole.values, marks, points, whole.brain, whole.step_mm, True)], config)
    drawn = [places.draw()[1] for _ in range(3000)]
    share = [float(np.mean([(d == p).all() for d in drawn])) for p in points]
    assert share == pytest.approx([0.5, 0.3], abs=0.04)
    assert kind_of(marks[1]) == NO_POINT


def test_mistakes_are_what_the_detector_finds_far_from_every_microbleed_and_are_sought_once(tmp_path: Path) -> None:
    own = study(1)
    x, y, z = own.points([m for m in own.marks if m.kind == "bleed"])[0].tolist()
    y += 20
    job = TrainingRun(load_profile("default"), load_config("heatmap-cpu"), Holdout([own], []), tmp_path, say=str)

    def locate(_inputs: Inputs, _device: torch.device) -> list[Candidate]:
        return [Candidate((x, y, z), 0.5), Candidate((x, y - 19.0, z), 0.9), Candidate((x, y, z - 3.0), 0.01)]

    (marked,) = mark_mistakes(job, locate)
    assert [m.kind for m in marked.marks] == [*(m.kind for m in own.marks), MISTAKE]
    assert own.points([marked.marks[-1]])[0] == pytest.approx((x, y, z), abs=1e-6)
    (again,) = mark_mistakes(job, lambda *_: [])
    assert again.marks == marked.marks


def test_shares_of_samples_are_no_more_than_all(tmp_path: Path) -> None:
    too_much = (
        "[detector]\nepochs = 1\nsteps = 1\nbatch = 1\nlearning_rate = 1\npositive_share = 0.6\nmistake_share = 0.3\n"
    )
    (tmp_path / "own.toml").write_text(too_much)
    with pytest.raises(InputError, match="more than 1 together"):
        load_config(str(tmp_path / "own.toml"))


def test_a_crop_larger_than_the_study_is_filled() -> None:
    config = StageConfig(epochs=1, steps=1, batch=1, learning_rate=1, crop=(40, 80, 96))
    assert CropDataset([on_grid(study(1), (1.0, 1.0, 2.0), ("swi",))], config)[0]["image"].shape == (1, 40, 80, 96)


def test_slices_hold_boxes_on_dark_places() -> None:
    config = StageConfig(
        epochs=1, steps=4, batch=5, learning_rate=1, crop=(1, 48, 48), positive_share=0.98, mimic_share=0.01,
        augmentation=Augmentation(kind="none", no_phase=0.0),
    )  # fmt: skip
    slices = SliceDataset([on_grid(study(n), (1.0, 1.0, None), ("adjacent", "complement")) for n in range(2)], config)
    seen = []
    for n in range(10):
        image, boxes = slices[n]
        assert image.shape == (2, 48, 48)
        for x1, y1, x2, y2 in boxes.tolist():
            seen.append(float(image[0, round((y1 + y2) / 2 - 0.5), round((x1 + x2) / 2 - 0.5)]))
    assert len(seen) >= 8
    assert np.median(seen) < 0.4, "tissue is 0.5"


def test_candidates_are_named_by_the_nearest_mark() -> None:
    own = study(1)
    at = own.points(own.marks)
    away = at[0] + (0, 4.5, 0)
    named = name_candidates(own, np.array([*at, away, [32.0, 1.0, 1.0]]), MiningConfig())
    assert named[:5].tolist() == [0, 0, 0, 1, 1]
    assert named[5] in (SKIP, 0, 1), "too near to a bleed to be nothing"
    assert named[6] == NOTHING


def test_what_a_reader_rejected_is_learned_as_no_bleed_even_beside_one() -> None:
    whole = study(1)
    first = whole.marks[0]
    x, y, z = first.centre_lps_mm
    config = MiningConfig()
    beside = Mark((x, y + config.match_mm + 0.5, z), REJECTED)
    own = replace(whole, marks=(first, beside), mimics_known=False)
    (bleed, rejected) = own.points(own.marks)
    assert kind_of(beside) == NO_POINT
    assert name_candidates(own, np.array([bleed, rejected]), config).tolist() == [0, UNKNOWN]
    nothing: list[Candidate] = []
    added, kinds = add_marks(own, nothing, np.array([], np.int64), config)
    assert (len(added), kinds.tolist()) == (2, [0, UNKNOWN])
    proposed = [Candidate(tuple(rejected.tolist()), 0.9)]
    assert len(add_marks(own, proposed, np.array([UNKNOWN]), config)[0]) == 2  # and the bleed


def test_calibrated_probabilities_match_what_happens() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * odds - 1)))
    offset, own, candidate = fit_calibration(odds, rng.normal(0, 1, 4000), truth)
    assert (offset, own, candidate) == pytest.approx((-1, 0.5, 0), abs=0.1)
    assert fit_calibration(odds, odds, np.zeros(4000, bool)) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("profile", ["heatmap", "al-masni-2020", "afzal-2021-alexnet", "afzal-2021-resnet50"])
@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_every_profile_has_a_configuration_for_both_machines(profile: str, machine: str) -> None:
    config = load_config(f"{profile}-{machine}")
    assert config.classifier is not None
    assert (config.detector is None) == profile.startswith("afzal")
    assert (config.device == "cuda") == (machine == "gpu")


def test_softening_spreads_a_dark_spot_and_keeps_its_darkness() -> None:
    torch.manual_seed(1)
    images = torch.ones(16, 1, 9, 15, 15)
    images[:, :, 4, 7, 7] = 0.0
    softened, _ = augment_volumes(images.clone(), ("swi",), STILL.model_copy(update={"soften": 1.0}), 0.5)
    assert (1 - softened).amax((1, 2, 3, 4)).max() < 0.95
    assert torch.allclose((1 - softened).sum((1, 2, 3, 4)), torch.ones(16), atol=1e-3)
    sharp, _ = augment_volumes(images.clone(), ("swi",), STILL, 0.5)
    assert torch.allclose((1 - sharp).amax((1, 2, 3, 4)), torch.ones(16), atol=1e-3)

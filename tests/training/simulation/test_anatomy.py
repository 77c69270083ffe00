"""Heads: where they come from, how they vary, and what is refused."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import InputError
from training.simulation.anatomy import AnatomyRef, list_anatomies, load_anatomy
from training.simulation.head import Head, Slab, make_head
from training.simulation.head_parameters import HeadParameters, draw_head
from training.simulation.regions import anatomy_depth, region_of
from training.simulation.scene import Scene
from training.simulation.sites import Sites
from training.simulation.tissue import PROPERTIES, Tissue, draw_tissue_state, tissue_table
from training.simulation.veins import Generator, VeinParameters, grow_veins
from training.simulation.veins.mimics import end_on_veins

pytestmark = pytest.mark.slow


def _labelled(folder: Path, labels: np.ndarray, name: str = "head1_labels.nii.gz") -> None:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -2.0 * (np.array(labels.shape) - 1)
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), folder / name)


def _ball(n: int = 40) -> np.ndarray:
    """A head of shells: white, grey, fluid, bone, fat."""
    at = np.arange(n) - n / 2 + 0.5
    r = np.sqrt(sum(a**2 for a in np.meshgrid(at, at, at, indexing="ij")))
    return np.select([r < 11, r < 15, r < 16, r < 17.5, r < 19], [3, 2, 1, 7, 4], 0)


def test_a_folder_of_labels_becomes_a_head(tmp_path: Path) -> None:
    _labelled(tmp_path, _ball())
    (ref,) = list_anatomies(tmp_path)
    assert ref.name == "head1"
    head = make_head(load_anatomy(ref), HeadParameters(warp_mm=0.5, white_lesions=2), Slab((160, 160, 120), 4.0), 1)
    assert head.brain().sum() > 1000
    total = head.csf.astype(int) + head.grey + head.white
    assert total.max() <= 258  # rounding of three fractions


def test_a_scheme_of_its_own_may_name_the_labels(tmp_path: Path) -> None:
    names = {0: "air", 1: "csf", 2: "grey", 3: "white", 4: "fat", 7: "bone"}
    labels = "\n".join(f'{10 * v} = "{n}"' for v, n in names.items())
    (tmp_path / "scheme.toml").write_text(f'[files]\nlabels = "_seg.nii.gz"\n[labels]\n{labels}\n')
    _labelled(tmp_path, _ball() * 10, "a_seg.nii.gz")
    anatomy = load_anatomy(list_anatomies(tmp_path)[0])
    assert anatomy.white.max() == 255


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    labels = _ball()
    labels[20, 20, 20] = 77
    _labelled(tmp_path, labels)
    with pytest.raises(InputError, match=r"\[77\] are not in the label scheme"):
        load_anatomy(list_anatomies(tmp_path)[0])


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x_labels.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        load_anatomy(list_anatomies(tmp_path)[0])


@pytest.mark.parametrize(
    ("scheme", "complaint"), [(None, "no labelled head"), ("freesurfer", "unknown label scheme 'freesurfer'")]
)
def test_an_empty_folder_or_an_unknown_scheme_is_refused(tmp_path: Path, scheme: str | None, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        list_anatomies(tmp_path, scheme)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list_anatomies(tmp_path / "nowhere")


def test_a_broken_scheme_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scheme.toml").write_text('[labels]\n1 = "cheese"\n')
    with pytest.raises(InputError, match="not a label scheme"):
        list_anatomies(tmp_path)


def test_patient_and_template_coordinates_invert_each_other(scene: Scene) -> None:
    points = np.random.default_rng(1).uniform(-50, 50, (50, 3))
    back = scene.head.to_mni(scene.head.to_mni.inverse(points))
    assert np.abs(back - points).max() < 0.05


def test_the_brain_has_the_size_of_a_brain(scene: Scene) -> None:
    litres = scene.head.brain().sum() * scene.head.geometry.voxel_volume / 1e6
    assert 0.9 < litres < 1.7


def test_old_heads_have_more_iron_and_atrophy() -> None:
    heads = [draw_head(np.random.default_rng(n)) for n in range(200)]
    old = [h for h in heads if h.age > 78]
    young = [h for h in heads if h.age < 62]
    for quality in ("iron", "atrophy_mm", "white_lesions"):
        assert np.mean([getattr(h, quality) for h in old]) > np.mean([getattr(h, quality) for h in young])


def test_nuclei_hold_iron_and_fluid_stays_fluid(scene: Scene) -> None:
    head: Head = scene.head
    full = head.inlay_fraction > 200
    assert {Tissue.PUTAMEN, Tissue.THALAMUS, Tissue.DENTATE} <= {Tissue(v) for v in np.unique(head.inlay[full])}
    assert (head.inlay_fraction.astype(int) + head.csf)[head.inlay != Tissue.CSF].max() <= 256


@pytest.mark.parametrize("field", [1.5, 3.0, 7.0])
def test_tissue_tables_pass_through_the_known_field_strengths(field: float) -> None:
    state = draw_tissue_state(np.random.default_rng(0), iron=1.0, oxygenation=0.6, haematocrit=0.42)
    table = tissue_table(state, field)
    n = {1.5: 0, 3.0: 1, 7.0: 2}[field]
    expected = PROPERTIES[Tissue.WHITE].t2star_ms[n] * state.t2star_factor[Tissue.WHITE]
    assert table.t2star_ms[Tissue.WHITE] == pytest.approx(expected, rel=1e-4)
    assert state.chi_ppm[Tissue.VEIN] == pytest.approx(0.27 * 4 * np.pi * 0.42 * 0.4, rel=1e-4)


@pytest.mark.parametrize("generator", list(Generator))
def test_veins_obey_murray_and_stay_in_the_head(scene: Scene, generator: Generator) -> None:
    parameters = VeinParameters(cortical=400, deep=60)
    tree = grow_veins(scene.head, scene.ground, generator, parameters, 5)
    again = grow_veins(scene.head, scene.ground, generator, parameters, 5)
    assert np.array_equal(tree.start, again.start)
    assert 1.0 < tree.volume_ml < 30
    assert tree.radius.min() >= 0.9 * parameters.cortical_radius_mm
    assert np.linalg.norm(tree.end - tree.start, axis=1).max() < 12
    other = grow_veins(scene.head, scene.ground, generator, parameters, 6)
    assert other.start.shape != tree.start.shape or not np.array_equal(other.start, tree.start)


def test_veins_that_cross_the_slices_are_known(scene: Scene) -> None:
    found = end_on_veins(scene)
    assert len(found) > 3
    centres = np.array([c for c, _ in found])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 100 * np.eye(len(centres))
    assert apart.min() > 6.0
    assert all(0.18 < r < 0.9 for _, r in found)


@pytest.mark.parametrize(
    ("mni", "depth", "region", "location", "side"),
    [
        ((30.0, 60.0, -35.0), 5.0, "infratentorial", "cerebellum", "left"),
        ((2.0, 28.0, -30.0), 5.0, "infratentorial", "brainstem", "midline"),
        ((-12.0, 19.0, 8.0), 20.0, "deep", "thalamus", "right"),
        ((27.0, -2.0, 2.0), 15.0, "deep", "basal ganglia", "left"),
        ((-30.0, -40.0, 25.0), 3.0, "lobar", "frontal", "right"),
        ((25.0, 90.0, 5.0), 3.0, "lobar", "occipital", "left"),
        ((55.0, 25.0, -15.0), 3.0, "lobar", "temporal", "left"),
        ((-20.0, -7.0, 10.0), 15.0, "deep", "internal capsule", "right"),
        ((34.5, -2.0, 4.0), 12.0, "deep", "external capsule", "left"),
        ((0.0, -28.0, 8.0), 6.0, "deep", "corpus callosum", "midline"),
        ((-28.0, 25.0, 30.0), 12.0, "deep", "white matter", "right"),
        ((5.0, 20.0, -10.0), 8.0, "infratentorial", "brainstem", "left"),
        ((-6.0, -40.0, -24.0), 3.0, "lobar", "frontal", "right"),
        ((45.0, 30.0, 45.0), 3.0, "lobar", "parietal", "left"),
        ((8.0, 80.0, 10.0), 3.0, "lobar", "occipital", "left"),
        ((40.0, -2.0, 2.0), 4.0, "lobar", "insula", "left"),
    ],
)
def test_known_places_are_in_their_region(mni, depth, region, location, side) -> None:
    assert region_of(np.array(mni), depth) == (region, location, side)


def test_in_a_mirrored_head_the_side_is_the_patients(scene: Scene, sites: Sites) -> None:
    mirrored = copy(sites)
    mirrored._head = replace(scene.head, parameters=replace(scene.head.parameters, mirror=True))
    at = scene.head.to_mni.inverse(np.array([[-30.0, -20.0, 40.0]]))[0]
    assert sites.region(tuple(at))[2] == "right"
    assert mirrored.region(tuple(at)) == (*sites.region(tuple(at))[:2], "left")


def test_the_depth_of_an_anatomy_is_that_of_its_cortex() -> None:
    depth = anatomy_depth(load_anatomy(AnatomyRef("icbm152")))
    surface, white, ventricle = depth([[-45.0, -20.0, 45.0], [-25.0, 20.0, 30.0], [-4.0, -5.0, 15.0]])
    assert surface < 6
    assert white > 9
    assert ventricle > 9  # the ventricles are no surface

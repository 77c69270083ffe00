"""Which pictures does docs/simulation.md show? Makes them again, on the ICBM152 head.

python benchmarks/simulation_figures.py --out docs/images
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

from training.simulation.anatomy import AnatomyRef, load_anatomy
from training.simulation.head_parameters import HeadParameters
from training.simulation.inclusion import Inclusion, InclusionKind, Sphere
from training.simulation.lesion_sampling import cavernoma
from training.simulation.protocol import PhaseFilter, Protocol, Sequence, SwiFilter
from training.simulation.scene import Scene, SceneParameters, make_scene
from training.simulation.study import Images, SimulatedStudy, simulate
from training.simulation.veins import Generator

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HEAD = HeadParameters(
    age=72, pose_deg=(4.0, -1.0, 2.0), scale=(0.93, 0.93, 0.92), atrophy_mm=0.5, iron=1.15, white_lesions=10
)
PROTOCOLS = {
    1.5: Protocol(field_strength_t=1.5, echo_time_ms=40, repetition_time_ms=49, voxel_mm=(0.8, 0.8, 2.0), snr=16),
    3.0: Protocol(snr=18),
    7.0: Protocol(
        field_strength_t=7.0,
        echo_time_ms=15,
        repetition_time_ms=25,
        flip_angle_deg=12,
        snr=22,
        voxel_mm=(0.5, 0.5, 1.5),
    ),
}
# Right, anterior, superior mm in MNI space: kind, radius, χ, density.
LESIONS = (
    ("microbleed, r 0.5 mm", InclusionKind.BLEED, (-30, -50, 32), 0.5, 1.2, 0.9),
    ("microbleed, r 1 mm", InclusionKind.BLEED, (34, 20, 30), 1.0, 1.4, 0.9),
    ("microbleed, r 2 mm", InclusionKind.BLEED, (-24, -64, -34), 2.0, 1.1, 0.9),
    ("microbleed in cortex", InclusionKind.BLEED, (46, -40, 30), 1.0, 1.4, 0.9),
    ("microbleed, thalamus", InclusionKind.BLEED, (12, -20, 8), 1.1, 1.3, 0.9),
    ("calcification", InclusionKind.CALCIFICATION, (-36, 10, 34), 1.3, -1.8, 0.3),
    ("pallidal calcification", InclusionKind.CALCIFICATION, (18, -2, -1), 1.3, -1.6, 0.4),
    ("iron", InclusionKind.IRON, (-18, -3, -2), 1.5, 0.35, 1.0),
    ("cavernoma", InclusionKind.CAVERNOMA, (-32, -22, 40), 3.0, 0.35, 0.9),
)


def inclusions(scene: Scene) -> tuple[Inclusion, ...]:
    """The lesions of the figures."""
    made = []
    for _, kind, (x, y, z), radius, chi, density in LESIONS:
        at = tuple(float(v) for v in scene.head.to_mni.inverse(np.array([[-x, -y, z]], dtype=float))[0])
        rng = np.random.default_rng(4)
        spheres = (
            cavernoma(at, radius, chi, rng) if kind is InclusionKind.CAVERNOMA else (Sphere(at, radius, chi, density),)
        )
        made.append(Inclusion(kind, spheres))
    return tuple(made)


def at_height(images: Images, scene: Scene, z_mni: float) -> int:
    """Slice at a height in MNI space."""
    point = scene.head.to_mni.inverse(np.array([[0.0, 18.0, z_mni]]))[0]
    return round(float(images.geometry.to_ijk(point)[2]))


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=72, pil_kwargs={"quality": 85})
    plt.close(figure)
    print(f"{path}: {path.stat().st_size // 1024} kB")


def row(axes: np.ndarray, pictures: list[tuple[str, np.ndarray, float, float]]) -> None:
    for axis, (title, picture, low, high) in zip(axes, pictures, strict=True):
        axis.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        axis.set_title(title, fontsize=11)
        axis.axis("off")


def cut(images: Images, k: int) -> tuple[slice, slice]:
    """Rows and columns that hold the head."""
    head = images.magnitude[k] > 0.25
    j, i = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    return slice(max(j[0] - 4, 0), j[-1] + 4), slice(max(i[0] - 4, 0), i[-1] + 4)


def series(study: SimulatedStudy, scene: Scene, path: Path) -> None:
    """Magnitude, phase, SWI and mIP at two heights."""
    images = study.images
    figure, axes = plt.subplots(2, 4, figsize=(15, 9.4), constrained_layout=True)
    for line, z in zip(axes, (0.0, 24.0), strict=True):
        k = at_height(images, scene, z)
        box = cut(images, k)
        low = images.mip[min(max(k - images.mip_slices // 2, 0), len(images.mip) - 1)]
        row(
            line,
            [
                ("magnitude", images.magnitude[k][box], 0, 1.5),
                ("phase", images.phase[k][box], -0.9, 0.9),
                ("SWI", images.swi[k][box], 0, 1.5),
                ("mIP, 16 mm", low[box], 0, 1.4),
            ],
        )
    save(figure, path)


def zooms(study: SimulatedStudy, path: Path) -> None:
    """Every kind of inclusion, SWI above phase."""
    images, half = study.images, 26
    figure, axes = plt.subplots(2, len(LESIONS), figsize=(18, 4.6), constrained_layout=True)
    for n, (entry, lesion) in enumerate(zip(study.truth.entries, LESIONS, strict=True)):
        k, j, i = np.round(images.geometry.to_ijk(entry.inclusion.centre_lps_mm)[::-1]).astype(int)
        box = (k, slice(j - half, j + half), slice(i - half, i + half))
        row(axes[:, n], [(lesion[0], images.swi[box], 0, 1.5), ("", images.phase[box], -1.5, 1.5)])
        seen = entry.seen
        bloom = seen.apparent_diameter_mm / 2 / lesion[3]
        print(f"{lesion[0]}: apparent {seen.apparent_diameter_mm:.1f} mm, x{bloom:.2f}, visible {seen.visible}")
    save(figure, path)


def fields(studies: dict[float, SimulatedStudy], scene: Scene, path: Path) -> None:
    """The same head at three field strengths."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 5.4), constrained_layout=True)
    pictures = []
    for field, study in studies.items():
        k = at_height(study.images, scene, 12.0)
        te = study.protocol.echo_time_ms
        pictures.append((f"{field:g} T, TE {te:g} ms", study.images.swi[k][cut(study.images, k)], 0, 1.5))
    row(axes, pictures)
    save(figure, path)


def variants(scene: Scene, other: Scene, path: Path) -> None:
    """Other filters, other veins, movement, 2D T2*."""
    lesions = inclusions(scene)
    base = PROTOCOLS[3.0]
    unwrap = replace(base, filter=SwiFilter(PhaseFilter.UNWRAP))
    hard = replace(base, voxel_mm=(0.9, 0.9, 3.0), snr=9, motion_mm=1.0, partial_fourier=(0.75, 0.875))
    flat = replace(
        base,
        sequence=Sequence.T2STAR_2D,
        voxel_mm=(0.9, 0.9, 5.0),
        repetition_time_ms=650,
        flip_angle_deg=20,
        echo_time_ms=22,
    )
    figure, axes = plt.subplots(1, 4, figsize=(16, 5.2), constrained_layout=True)
    pictures = []
    for name, one, protocol in (
        ("unwrapped, high-pass", scene, unwrap),
        ("stress: noise, movement", scene, hard),
        ("the other vein generator", other, base),
        ("2D T2*-GRE, 5 mm", scene, flat),
    ):
        images = simulate(one, protocol, lesions, 2).images
        k = at_height(images, one, 24.0)
        pictures.append((name, images.swi[k][cut(images, k)], 0, 1.6))
    row(axes, pictures)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    anatomy = load_anatomy(AnatomyRef("icbm152"))
    scene = make_scene(anatomy, SceneParameters(HEAD), 21, workers=2)
    studies = {field: simulate(scene, p, inclusions(scene), 2, workers=2) for field, p in PROTOCOLS.items()}
    series(studies[3.0], scene, out / "simulation-series.jpg")
    zooms(studies[3.0], out / "simulation-zooms.jpg")
    fields(studies, scene, out / "simulation-fields.jpg")
    other = make_scene(anatomy, SceneParameters(HEAD, generator=Generator.COLONISATION), 21, workers=2)
    variants(scene, other, out / "simulation-variants.jpg")


if __name__ == "__main__":
    main()

"""How well, how fast, is one scan laid on another, and what becomes of bleeds? Errors of known poses; seconds.

    python -m benchmarks.change [--poses 4]

A head of the ICBM152 anatomy is simulated with bleeds at 3 T and scanned again, moved by a known rotation and shift,
with other noise and under other coils; then with other voxels, and as a T2*-weighted magnitude. The error is that of
the pose at the bleeds. Beside it stand the fit, how far registration forth and back differ, and what it says when the
two heads are not the same. The last row is a grid of 512 × 448 × 72: seconds there are those of a whole comparison, its
reference image included.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from pipeline.brain import extract_brain
from pipeline.change import ChangeParameters, ReferenceImage, make_reference, register
from pipeline.geometry import Acquisition, FrameReference, Geometry, Volume
from tests.longitudinal import Matrix, bleed, moved, place, rigid, scan
from training.simulation.anatomy import AnatomyRef, load_anatomy
from training.simulation.head import Slab
from training.simulation.head_parameters import HeadParameters
from training.simulation.protocol import Protocol
from training.simulation.scene import Scene, SceneParameters, make_scene
from training.simulation.study import Images

SLAB = Slab(fov_mm=(180.0, 216.0, 144.0), fine_mm=0.9)
PLACES = ((-34.0, -62.0, 26.0), (30.0, 28.0, 22.0), (-28.0, 3.0, 3.0), (14.0, -19.0, 8.0), (-22.0, -62.0, -34.0))
PROTOCOL = Protocol(name="change", voxel_mm=(0.9, 0.9, 2.0), snr=20.0)


def reference(images: Images, *, magnitude: bool = False) -> ReferenceImage:
    shown = images.magnitude if magnitude else images.swi
    frames = tuple(FrameReference(f"1.{k}", "1", "") for k in range(len(shown)))
    acquisition = Acquisition(
        Volume(shown, images.geometry, frames), sequence="t2star" if magnitude else "swi", field_strength_t=3.0
    )
    return make_reference(acquisition, extract_brain(Volume(images.magnitude, images.geometry, frames)))


def row(name: str, present: ReferenceImage, prior: ReferenceImage, pose: Matrix | None, points: np.ndarray) -> None:
    started = time.process_time()
    found = register(present, prior)
    seconds = time.process_time() - started
    worst = "–"
    if pose is not None:
        true = points @ pose[:3, :3].T + pose[:3, 3]
        worst = f"{np.linalg.norm(found.to_present(points) - true, axis=1).max():.2f}"
    said = found.objection(ChangeParameters()) or "compared"
    print(f"| {name} | {worst} | {found.fit:.2f} | {found.discord_mm:.2f} | {said} | {seconds:.1f} |", flush=True)


def head(seed: int, **given: object) -> Scene:
    parameters = HeadParameters(**{"age": 74, "scale": (0.93, 0.925, 0.92), **given})  # type: ignore[arg-type]
    return make_scene(load_anatomy(AnatomyRef("icbm152")), SceneParameters(parameters, SLAB), seed)


def large(prior: ReferenceImage) -> None:
    """Time a comparison at 512 × 448 × 72 voxels of 0.43 × 0.43 × 2 mm."""
    affine = np.diag([0.43, 0.43, 2.0, 1.0])
    affine[:3, 3] = (-96.0, -110.0, -71.0)
    grid = Geometry((72, 512, 448), affine)
    pose = rigid((5, 3, -4), (3, 2, -4))
    grey = moved(prior.image.astype(np.float32), prior.geometry, pose, grid)
    brain = moved(prior.brain.astype(np.float32), prior.geometry, pose, grid) > 0.5
    frames = tuple(FrameReference(f"1.{k}", "1", "") for k in range(72))
    started, cpu = time.perf_counter(), time.process_time()
    made = make_reference(Acquisition(Volume(grey, grid, frames)), brain)
    found = register(made, prior)
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    size = len(made.to_bytes()) / 1e6
    print(f"| 512 × 448 × 72, reference made (kept: {size:.1f} MB) | – | {found.fit:.2f} | {found.discord_mm:.2f} | "
          f"{wall:.1f} s on the clock | {used:.1f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--poses", type=int, default=4)
    given = parser.parse_args()
    scene = head(11)
    bleeds = tuple(bleed(place(scene, mni)) for mni in PLACES)
    points = np.array([one.centre_lps_mm for one in bleeds])
    prior = reference(scan(scene, bleeds, np.eye(4), PROTOCOL, 0))
    print("| pair | error at bleeds, mm | fit | forth and back, mm | | CPU s |\n|---|---:|---:|---:|---|---:|")
    rng = np.random.default_rng(3)
    for number in range(given.poses):
        turn, shift = rng.uniform(-15, 15, 3), rng.uniform(-20, 20, 3) / np.sqrt(3)
        pose = rigid(tuple(turn), tuple(shift))
        name = f"turned {' '.join(f'{v:.0f}' for v in turn)}°, shifted {np.linalg.norm(shift):.0f} mm"
        row(name, reference(scan(scene, bleeds, pose, PROTOCOL, number + 1)), prior, pose, points)
    pose = rigid((6, -4, 3), (3, 2, -5))
    thick = replace(PROTOCOL, voxel_mm=(0.9, 1.1, 3.0), snr=12.0, shading=0.5)
    row("3 mm slices, more noise, other coils", reference(scan(scene, bleeds, pose, thick, 90)), prior, pose, points)
    echo = replace(PROTOCOL, echo_time_ms=27.0, snr=15.0)
    row("T2*-weighted now", reference(scan(scene, bleeds, pose, echo, 91), magnitude=True), prior, pose, points)
    warped = head(12, warp_mm=1.3, scale=(0.90, 0.95, 0.93), atrophy_mm=0.6)
    row("another head of the same atlas", reference(scan(warped, (), pose, PROTOCOL, 92)), prior, None, points)
    large(prior)


if __name__ == "__main__":
    main()

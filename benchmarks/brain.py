"""How well, how fast, is the brain found? Dice of the mask on simulated heads, and seconds a volume.

    python -m benchmarks.brain [--anatomy FOLDER] [--heads 6]

The heads have random shape, age and pose; the SWI is simulated with 0.7 mm in plane and 2 mm slices at 3 T, the mask is
made from the magnitude, as the pipeline does. Truth is the brain as a reader would outline it: grey and white matter,
with the sulci and ventricles between them (closed by 3 mm, holes filled). Beside it stand Dice against the brain with
all fluid about it, which matters where a brain has shrunk, and against the bare tissue, sulci left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import NDArray

from pipeline.brain import extract_brain
from pipeline.geometry import FrameReference, Geometry, Volume
from pipeline.profile import load_profile
from pipeline.sitk_images import to_sitk
from training.simulation.anatomy import list_anatomies, load_anatomy
from training.simulation.head import Slab
from training.simulation.head_parameters import draw_head
from training.simulation.protocol import Protocol
from training.simulation.scene import Scene, SceneParameters, make_scene
from training.simulation.study import simulate

Mask = NDArray[np.bool_]
SLAB = Slab(fov_mm=(184.0, 224.0, 144.0), fine_mm=0.7)
PROTOCOL = Protocol(name="brain", voxel_mm=(0.7, 0.7, 2.0))


def closed(mask: sitk.Image, millimetres: float) -> sitk.Image:
    radius = [max(1, round(millimetres / s)) for s in mask.GetSpacing()]
    return sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(mask, radius))


def truth(scene: Scene, geometry: Geometry) -> tuple[Mask, ...]:
    """Brain as outlined, with all fluid, and bare tissue, on the grid of the images."""
    head = scene.head
    tissue = to_sitk(head.brain().astype(np.uint8), head.geometry)
    wet = to_sitk((head.grey.astype(np.uint16) + head.white + head.csf >= 128).astype(np.uint8), head.geometry)
    like = to_sitk(np.zeros(geometry.shape, np.uint8), geometry)
    masks = (closed(tissue, 3.0), wet, tissue)
    on_images = (sitk.Resample(mask, like, sitk.Transform(), sitk.sitkNearestNeighbor) for mask in masks)
    return tuple(sitk.GetArrayFromImage(mask) > 0 for mask in on_images)


def dice(a: Mask, b: Mask) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--anatomy", type=Path, help="folder of labelled heads; by default ICBM152")
    parser.add_argument("--heads", type=int, default=6)
    given = parser.parse_args()
    references = list_anatomies(given.anatomy)
    parameters = load_profile("frst").brain
    rows = []
    print("| head | Dice, brain outlined | with all fluid | bare tissue | s |\n|---|---:|---:|---:|---:|")
    for seed in range(given.heads):
        reference = references[seed % len(references)]
        head = draw_head(np.random.default_rng([7, seed]))
        scene = make_scene(load_anatomy(reference), SceneParameters(head=head, slab=SLAB), seed)
        images = simulate(scene, PROTOCOL, (), seed).images
        frames = tuple(FrameReference(f"1.{k}", "1", "") for k in range(images.geometry.shape[0]))
        started = time.perf_counter()
        mask = extract_brain(Volume(images.magnitude, images.geometry, frames), parameters)
        seconds = time.perf_counter() - started
        row = [dice(mask, true) for true in truth(scene, images.geometry)]
        rows.append((*row, seconds))
        print(f"| {reference.name}, seed {seed} | {' | '.join(f'{d:.3f}' for d in row)} | {seconds:.1f} |", flush=True)
    *columns, times = zip(*rows, strict=True)
    middle, lowest = ([f"{of(column):.3f}" for column in columns] for of in (statistics.median, min))
    print(f"| median | {' | '.join(middle)} | {statistics.median(times):.1f} |")
    print(f"| lowest, slowest | {' | '.join(lowest)} | {max(times):.1f} |")


if __name__ == "__main__":
    main()

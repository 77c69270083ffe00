"""How long does one 0.50 × 0.50 × 2 mm study take, and a further one on the same head? How much memory?

python benchmarks/simulation_speed.py [--anatomy DIR] [--workers 2]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import JPEGLSLossless

from training.simulation.anatomy import list_anatomies, load_anatomy
from training.simulation.lesion_sampling import LesionParameters, draw_inclusions
from training.simulation.protocol import Protocol
from training.simulation.scene import SceneParameters, make_scene
from training.simulation.sites import Sites
from training.simulation.study import simulate
from training.simulation.writers.identity import StudyIdentity
from training.simulation.writers.vendors import Packing, write_dicom

PACKING = Packing(JPEGLSLossless)
ROWS: list[tuple[str, float, float]] = []


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Do it, and note wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    ROWS.append((name, time.perf_counter() - wall, time.process_time() - cpu))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomy", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    a = parser.parse_args()
    ref = list_anatomies(a.anatomy)[0]
    anatomy = timed("read the anatomy", lambda: load_anatomy(ref))
    scene = timed("head, veins, field", lambda: make_scene(anatomy, SceneParameters(), 1, workers=a.workers))
    sites = timed("lesion sites", lambda: Sites(scene))
    draw = LesionParameters(free_share=0)
    for n, name in enumerate(("first", "further")):
        rng = np.random.default_rng(n)
        inclusions = draw_inclusions(sites, draw, rng)
        protocol = Protocol(echo_time_ms=20 + n)
        study = timed(
            f"{name} scan, truth", lambda i=inclusions, p=protocol: simulate(scene, p, i, 1, workers=a.workers)
        )
        with tempfile.TemporaryDirectory() as folder:
            timed(
                f"{name} DICOM, JPEG-LS", lambda s=study, f=folder: write_dicom(s, StudyIdentity("t"), Path(f), PACKING)
            )
    print("| step | wall, s | processor, s |\n|---|---|---|")
    for name, wall, cpu in ROWS:
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
    first, further = ROWS[:5], ROWS[5:]
    print(f"| **one study** | {sum(r[1] for r in first):.1f} | {sum(r[2] for r in first):.1f} |")
    print(f"| **each further one** | {sum(r[1] for r in further):.1f} | {sum(r[2] for r in further):.1f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{ref.name}, {study.images.geometry.shape} voxels, peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()

"""Can a linear probe tell where a microbleed *will* be put, from the picture without it? It should not: AUC near 0.5.

Sites of microbleeds and of null insertions are drawn on simulated heads, and patches are cut from the scan without any
inclusion. A logistic regression on the patches (SWI and phase) is tested on heads it was not trained on.

    python benchmarks/simulation_shortcut.py [--anatomy DIR] [--heads 4]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.simulation.anatomy import list_anatomies, load_anatomy
from training.simulation.head_parameters import draw_head
from training.simulation.inclusion import InclusionKind
from training.simulation.lesion_sampling import LesionParameters, draw_inclusions
from training.simulation.protocol import Protocol
from training.simulation.scene import SceneParameters, make_scene
from training.simulation.sites import Sites
from training.simulation.study import Images, simulate

HALF = (2, 8, 8)  # slices, rows, columns either side
DRAWS = 90


@dataclass(frozen=True)
class Patches:
    """Patches of one head with what was to be put there."""

    values: np.ndarray
    is_bleed: np.ndarray


def patch(images: Images, centre: tuple[float, float, float]) -> np.ndarray | None:
    """SWI and phase round a point, flattened; None at the edge of the image."""
    k, j, i = np.round(images.geometry.to_ijk(centre)[::-1]).astype(int)
    box = tuple(slice(c - h, c + h + 1) for c, h in zip((k, j, i), HALF, strict=True))
    cut = images.swi[box]
    if min(k - HALF[0], j - HALF[1], i - HALF[2]) < 0 or cut.shape != tuple(2 * h + 1 for h in HALF):
        return None
    return np.concatenate([cut.ravel(), images.phase[box].ravel()])


def head_patches(ref, seed: int) -> Patches:
    """Patches at many drawn sites of one head."""
    rng = np.random.default_rng(seed)
    scene = make_scene(load_anatomy(ref), SceneParameters(head=draw_head(rng)), seed)
    images = simulate(scene, Protocol(), (), seed).images
    sites = Sites(scene)
    parameters = LesionParameters(free_share=0.0, median_count=4.0, nulls=5.7, calcifications=0, cavernomas=0, iron=0)
    values, is_bleed = [], []
    for _ in range(DRAWS):
        for inclusion in draw_inclusions(sites, parameters, rng):
            cut = patch(images, inclusion.centre_lps_mm)
            if cut is not None:
                values.append(cut)
                is_bleed.append(inclusion.kind is InclusionKind.BLEED)
    return Patches(np.array(values, dtype=np.float32), np.array(is_bleed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomy", type=Path)
    parser.add_argument("--heads", type=int, default=4)
    a = parser.parse_args()
    refs = list_anatomies(a.anatomy)
    heads = [head_patches(refs[n % len(refs)], 500 + n) for n in range(a.heads)]
    scores, truth = [], []
    for n, held_out in enumerate(heads):
        rest = [h for m, h in enumerate(heads) if m != n]
        probe = make_pipeline(StandardScaler(), PCA(40, random_state=0), LogisticRegression(C=0.1, max_iter=2000))
        probe.fit(np.concatenate([h.values for h in rest]), np.concatenate([h.is_bleed for h in rest]))
        scores.append(probe.decision_function(held_out.values))
        truth.append(held_out.is_bleed)
    score, label = np.concatenate(scores), np.concatenate(truth)
    rng = np.random.default_rng(0)
    boot = []
    for _ in range(500):
        pick = rng.integers(0, len(label), len(label))
        boot.append(roc_auc_score(label[pick], score[pick]))
    low, high = np.percentile(boot, [2.5, 97.5])
    print("| heads | microbleed sites | null sites | AUC, held-out heads | 95 % |\n|---|---|---|---|---|")
    print(
        f"| {a.heads} | {label.sum()} | {(~label).sum()} | {roc_auc_score(label, score):.3f} | {low:.3f}-{high:.3f} |"
    )


if __name__ == "__main__":
    main()

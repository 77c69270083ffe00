"""Where does the detector that a training starts from find what is not there? There it has most to learn.

Studies that it never saw show this best: on those that it was trained on it makes few mistakes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.networks.inputs import Inputs
from training.datasets.cache import CachedStudy
from training.datasets.mark_kinds import BLEED, MISTAKE
from training.datasets.record import Mark

from .samples import inputs_of
from .training_run import TrainingRun

FILE = "mistakes.json"
LEAST_SCORE = 0.1
"""Weaker peaks are left to chance."""
APART_MM = 6.0
"""What is nearer to a microbleed, visible or not, is no mistake."""


def mark_mistakes(job: TrainingRun, locate: Callable[[Inputs, torch.device], list[Candidate]]) -> list[CachedStudy]:
    """Add a mark to the training studies wherever the detector is wrong; found once for a run and kept in its folder.

    Parameters
    ----------
    job : TrainingRun
        Its training studies are searched.
    locate : callable
        The detector, before it is trained.
    """
    path = job.out / FILE
    if not path.is_file():
        device = torch.device(job.device)
        found = {s.name: _false_positives(s, locate(inputs_of(s), device)).tolist() for s in job.split.train}
        job.say(f"{sum(map(len, found.values()))} mistakes of the detector in {len(found)} studies")
        path.write_text(json.dumps(found) + "\n")
    places: dict[str, list[tuple[float, float, float]]] = json.loads(path.read_text())
    return [
        replace(s, marks=(*s.marks, *(Mark((x, y, z), MISTAKE) for x, y, z in places[s.name]))) for s in job.split.train
    ]


def _false_positives(study: CachedStudy, candidates: list[Candidate]) -> NDArray[np.float64]:
    """Patient coordinates ``(n, 3)`` of the candidates that are far from every microbleed."""
    strong = [c.ijk for c in candidates if c.score >= LEAST_SCORE]
    points = study.geometry.to_lps(np.array(strong, np.float64).reshape(-1, 3))
    bleeds = np.array([m.centre_lps_mm for m in study.marks if m.kind == BLEED]).reshape(-1, 3)
    distance = np.linalg.norm(points[:, None] - bleeds[None], axis=2).min(1, initial=np.inf)
    return np.asarray(points[distance > APART_MM])

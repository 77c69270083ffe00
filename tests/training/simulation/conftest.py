"""A small head that all simulator tests share: coarse voxels, the ICBM152 anatomy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.geometry import Geometry
from training.simulation.anatomy import AnatomyRef, load_anatomy
from training.simulation.head import Slab
from training.simulation.head_parameters import HeadParameters
from training.simulation.scene import Scene, SceneParameters, make_scene
from training.simulation.sites import Sites
from training.simulation.veins import VeinParameters

SMALL_SLAB = Slab(fov_mm=(180.0, 210.0, 132.0), fine_mm=1.5)


def small_parameters() -> SceneParameters:
    return SceneParameters(HeadParameters(), SMALL_SLAB, veins=VeinParameters(cortical=800, deep=100))


@pytest.fixture(scope="session")
def scene() -> Scene:
    return make_scene(load_anatomy(AnatomyRef("icbm152")), small_parameters(), seed=3)


@pytest.fixture(scope="session")
def sites(scene: Scene) -> Sites:
    return Sites(scene)


@pytest.fixture(scope="session")
def block() -> Callable[..., tuple[np.ndarray, Geometry]]:
    """A uniform complex block of tissue, the place to test an insertion in."""

    def make(n: tuple[int, int, int] = (40, 64, 64), spacing: tuple[float, float, float] = (0.5, 0.5, 0.5)):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -np.array(spacing) * (np.array(n[::-1]) - 1) / 2
        return np.ones(n, dtype=np.complex64), Geometry(n, affine)

    return make

"""Where do the veins run? Procedural trees of two kinds, the large sinuses, and their fine-grid image."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from training.simulation.head import Head

from .colonisation import colonise
from .drainage import drain
from .raster import VeinImage, rasterise
from .sinuses import sinuses
from .territory import Territory, territory
from .tree import VeinParameters, VeinTree, join

__all__ = [
    "Generator", "Territory", "VeinImage", "VeinParameters", "VeinTree", "grow_veins", "join", "rasterise", "territory",
]  # fmt: skip


class Generator(StrEnum):
    """How the trees are grown."""

    DRAINAGE = "drainage"
    COLONISATION = "colonisation"


def grow_veins(head: Head, ground: Territory, generator: Generator, parameters: VeinParameters, seed: int) -> VeinTree:
    """All veins of a head, in patient millimetres; the same seed grows the same veins."""
    rng = np.random.default_rng([seed, 2])
    large = sinuses(head, ground)
    grow = drain if generator is Generator.DRAINAGE else colonise
    trees = [grow(ground, large, parameters, rng)]
    if head.vessels is None:
        trees.append(large.tree)
    return join(trees)

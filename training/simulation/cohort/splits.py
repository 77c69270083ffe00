"""Which heads are for training, which for testing? Their names decide, so no head is ever on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from training.simulation.anatomy import AnatomyRef

from .plan import Split

SHARES: dict[Split, float] = {"train": 0.64, "validation": 0.14, "test": 0.22}


def assign_splits(anatomies: Sequence[AnatomyRef]) -> dict[Split, tuple[AnatomyRef, ...]]:
    """Deal anatomies to splits.

    The order is that of a hash of their names: it is the same for every cohort made from the same folder. With fewer
    than three anatomies they cannot be kept apart, and every split gets all of them (:func:`disjoint` tells).
    """
    ranked = sorted(anatomies, key=lambda a: hashlib.sha256(a.name.encode()).hexdigest())
    n = len(ranked)
    if n < len(SHARES):
        return {split: tuple(ranked) for split in SHARES}
    validation = max(1, round(SHARES["validation"] * n))
    test = max(1, round(SHARES["test"] * n))
    return {
        "test": tuple(ranked[:test]),
        "validation": tuple(ranked[test : test + validation]),
        "train": tuple(ranked[test + validation :]),
    }


def disjoint(splits: dict[Split, tuple[AnatomyRef, ...]]) -> bool:
    """Whether no anatomy is in two splits."""
    names = [a.name for refs in splits.values() for a in refs]
    return len(set(names)) == len(names)

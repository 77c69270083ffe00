"""Which studies train, and which choose the model? Apart by head and by person, never by study."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import InputError
from training.datasets.cache import CachedStudy

FEWEST_HEADS = 3


class Holdout(NamedTuple):
    """Studies to train on, and studies to choose the best model with."""

    train: list[CachedStudy]
    validation: list[CachedStudy]


def hold_out_validation(studies: Sequence[CachedStudy], validation_share: float) -> Holdout:
    """Split as the data set says; where it says nothing, by the hash of the head's name. Test studies are left out.

    With fewer than three heads they cannot be kept apart, only persons can.

    Raises
    ------
    InputError
        When a head or a person is on both sides, or a side is empty.
    """
    unsplit = {s.anatomy for s in studies if s.split is None}
    ranked = sorted(unsplit, key=lambda a: hashlib.sha256(a.encode()).hexdigest())
    held_out = set(ranked[: max(1, round(validation_share * len(ranked)))]) if len(ranked) > 1 else set()
    train = [s for s in studies if s.split == "train" or (s.split is None and s.anatomy not in held_out)]
    validation = [s for s in studies if s.split == "validation" or (s.split is None and s.anatomy in held_out)]
    if not train or not validation:
        empty = "train on" if not train else "validate with"
        raise InputError(f"there is no study to {empty}", do="add studies of that split, or of other heads")
    few = len({s.anatomy for s in studies}) < FEWEST_HEADS
    for what in ("subject",) if few else ("anatomy", "subject"):
        both = {getattr(s, what) for s in train} & {getattr(s, what) for s in validation}
        if both:
            raise InputError(f"{what} {sorted(both)[0]} is in training and in validation", do="run `cmbtrain check`")
    return Holdout(train, validation)

"""How is a folder compared with an earlier one, without a server? The earlier study is analysed first, the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydicom import dcmread

from node.analyse.comparison import Comparison
from pipeline.errors import InputError
from pipeline.parameters import ChangeParameters
from pipeline.read.study import SeriesSelection

if TYPE_CHECKING:
    from pipeline.profile import Profile

_IDENTITY = ("PatientID", "StudyDate")


class _Named(NamedTuple):
    patient_id: str
    date: str


def compare_with(
    earlier: SeriesSelection,
    folder: Path,
    present: SeriesSelection,
    recipe: Profile,
    device: str,
    progress: Callable[[str], None],
    parameters: ChangeParameters,
) -> Comparison:
    """Analyse an earlier study as one to compare with.

    Parameters
    ----------
    earlier, present : SeriesSelection
        What was picked of each study.
    folder : Path
        Where the earlier one lies, for messages.
    recipe : Profile
        With which both are analysed.

    Raises
    ------
    InputError
        If it is the same study, or not earlier, or cannot be analysed.
    """
    from pipeline.change import Prior, make_reference
    from pipeline.detect import detect

    then, now = _named(earlier), _named(present)
    if _study(earlier) == _study(present):
        raise InputError("it is the same study", where=str(folder), do="name a prior of the study")
    if then.date and now.date and then.date > now.date:
        raise InputError(f"it is of {then.date}, later than {now.date}", where=str(folder), do="swap the two folders")
    key = earlier.key(recipe.digest)
    found = detect(earlier, recipe, key=key, device=device, progress=lambda stage: progress(f"prior: {stage}"))
    if found.brain is None:  # for the type checker: a detection has one
        raise AssertionError
    reference = make_reference(found.acquisition, found.brain)
    return Comparison(parameters, Prior(found.findings, reference, _study(earlier), then.date), key)


def another_patient(earlier: SeriesSelection, present: SeriesSelection) -> str:
    """What to warn of if the patient IDs differ, as they may between pseudonyms; empty if they do not."""
    then, now = _named(earlier), _named(present)
    return "" if then.patient_id == now.patient_id else "the prior has another patient ID"


def _study(chosen: SeriesSelection) -> str:
    return chosen.used[0].study_instance_uid


def _named(chosen: SeriesSelection) -> _Named:
    path = chosen.used[0].leaves[0].instances[0].path
    header = dcmread(path, stop_before_pixels=True, specific_tags=list(_IDENTITY))
    return _Named(*(str(header.get(name) or "").strip() for name in _IDENTITY))

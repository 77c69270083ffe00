"""What does a profile answer to every study of a cohort? From DICOM, through the pipeline that the node runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pipeline
from pipeline.detect import analyse, detect
from pipeline.errors import InputError, NoSwiError
from pipeline.findings import Findings
from pipeline.geometry import Acquisition
from pipeline.profile import Profile
from pipeline.read.study import SeriesSelection, find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition
from training.datasets.record import Record

from .cases import Case, CaseFindings
from .metrics import StudyResult

Say = Callable[[str], None]


@cache
def code_digest() -> str:
    """SHA-256 of the pipeline's source: findings of other code are not taken for those of this one."""
    root = Path(pipeline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def pick_case(case: Case, *, t2star: bool = False) -> SeriesSelection:
    """Find the images of a case; with `t2star`, a gradient echo where there is no SWI.

    Raises
    ------
    InputError
        If its folder does not hold one study with an SWI.
    """
    if case.images is None:
        raise AssertionError(f"{case.name} has no DICOM")
    studies, _ = read_studies(path for path in find_files(case.images) if path.suffix != ".json")
    if case.study_instance_uid:
        studies = [study for study in studies if study.study_instance_uid == case.study_instance_uid]
    if len(studies) != 1:
        raise InputError(
            f"holds {len(studies)} DICOM studies, not the one of {case.name}",
            where=str(case.images),
            do="" if studies else "simulate with --format dicom",
        )
    chosen = select_series(studies[0], t2star=t2star)
    if not chosen.analysable:
        raise NoSwiError(chosen.why, where=str(case.images))
    return chosen


def images_of(case: Case) -> Acquisition:
    """Read the images of a case, as it is analysed.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    return case.record.read().acquisition if case.record else read_acquisition(pick_case(case, t2star=True))


def run_profile(
    cases: Iterable[Case],
    profile: Profile,
    cache: Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    say: Say = lambda _: None,
) -> Iterator[StudyResult]:
    """Analyse the cases one by one; what was answered before is not asked again.

    Parameters
    ----------
    cases : iterable of Case
        The studies.
    profile : Profile
        The recipe.
    cache : Path
        Folder that keeps each ``findings.json`` under the key of its job: images, profile and weights, code.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    fresh : bool
        Analyse again even so.
    say : callable
        Told one line a study.

    Raises
    ------
    ProfileError
        The profile cannot run at all. A study that cannot be analysed is a result without an answer instead.
    """
    for case in cases:
        try:
            document, new = _findings(case, profile, cache / profile.name, device, fresh)
        except InputError as error:
            result = StudyResult.of(case, None, str(error))
        else:
            result = StudyResult.of(case, CaseFindings.of(document))
        say(_line(result, profile, "" if result.refused or new else ", analysed before"))
        yield result


def _findings(case: Case, profile: Profile, folder: Path, device: str, fresh: bool) -> tuple[dict[str, Any], bool]:
    """The document of the findings, and whether it is new."""
    key, analysis = _labelled(case.record, profile, device) if case.record else _dicom(case, profile, device)
    path = folder / f"{hashlib.sha256((key + code_digest()).encode()).hexdigest()}.json"
    if path.is_file() and not fresh:
        return json.loads(path.read_text(encoding="utf-8")), False
    document = analysis().to_json()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8")), True


def _dicom(case: Case, profile: Profile, device: str) -> tuple[str, Callable[[], Findings]]:
    """Key and analysis of a study in DICOM, as in the clinic."""
    chosen = pick_case(case, t2star=profile.suits.t2star)
    key = chosen.key(profile.digest)
    return key, lambda: detect(chosen, profile, key=key, device=device).findings


def _labelled(record: Record, profile: Profile, device: str) -> tuple[str, Callable[[], Findings]]:
    """Key and analysis of images as training reads them."""
    study = record.read()
    images = study.acquisition
    digest = hashlib.sha256(f"{profile.digest}\0{images.swi.geometry.affine.tolist()}".encode())
    for volume in (images.swi, images.phase, images.magnitude):
        digest.update(b"-" if volume is None else volume.array.tobytes())
    key = digest.hexdigest()
    return key, lambda: analyse(images, profile, key=key, brain=study.brain, device=device).findings


def _line(result: StudyResult, profile: Profile, note: str) -> str:
    start = f"{profile.name} {result.case.name}"
    if result.refused:
        return f"{start}: refused, {result.refused}"
    visible, false = len(result.case.truth.visible), len(result.false)
    return f"{start}: {result.hits} of {visible} visible microbleeds, {false} false{note}"


def require_names(profiles: Sequence[Profile]) -> None:
    """Refuse two profiles of one name: their columns could not be told apart.

    Raises
    ------
    InputError
        If there are two.
    """
    names = [profile.name for profile in profiles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two profiles are called {twice[0]}", do="give each its own name in its file")

"""How does a folder become results on disk, without a server and with nothing half done?"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node.analyse.comparison import Comparison
from pipeline.errors import InputError, NoSwiError
from pipeline.findings import Findings
from pipeline.parameters import ChangeParameters
from pipeline.read.recognition import RecognitionRules, load_rules
from pipeline.read.study import SeriesSelection, Study, Unreadable, find_files, read_studies, select_series

from .compare_folder import another_patient, compare_with

DEFAULT_PROFILE = "default"
_RESULTS = ("seg.dcm", "sr.dcm", "capture.dcm", "findings.json")


@dataclass(frozen=True)
class FolderResult:
    """The answer, the files written, and the number that a PACS shows for each slice."""

    findings: Findings
    written: tuple[Path, ...]
    slice_numbers: tuple[int, ...]


def detect_folder(
    folder: Path,
    out: Path,
    profile: str | None,
    device: str,
    study_uid: str | None,
    progress: Callable[[str], None],
    rules: Path | None = None,
    prior: Path | None = None,
    change: ChangeParameters | None = None,
) -> FolderResult:
    """Analyse the study in `folder`, compare it with that in `prior`, and write its results to `out`.

    Raises
    ------
    InputError
        If a folder holds no study that can be analysed, or `out` cannot be written.
    """
    from pipeline.profile import load_profile

    with _all_or_nothing(out) as staging:
        recipe = load_profile(profile or DEFAULT_PROFILE)
        table = load_rules(rules) if rules else None
        chosen = pick_study(folder, study_uid, table, t2star=recipe.suits.t2star)

        earlier = pick_study(prior, None, table, t2star=recipe.suits.t2star) if prior else None

        from pipeline.detect import Stopwatch, detect
        from pipeline.results import make_results, write_results
        from pipeline.results.source import read_planes

        comparison = Comparison(change or ChangeParameters())
        if earlier is not None and prior is not None:
            comparison = compare_with(earlier, prior, chosen, recipe, device, progress, comparison.parameters)
        key = chosen.key(recipe.digest, comparison.part_of_key)
        detection = detect(chosen, recipe, key=key, device=device, progress=progress)
        detection, _ = comparison.apply(detection, Stopwatch(progress))
        if earlier is not None and (warning := another_patient(earlier, chosen)):
            findings = replace(detection.findings, warnings=(*detection.findings.warnings, warning))
            detection = replace(detection, findings=findings)
        progress("write results")
        write_results(make_results(detection, key=key, created=datetime.now(UTC)), staging)
        document = json.dumps(detection.findings.to_json(), indent=2, ensure_ascii=False)
        (staging / "findings.json").write_text(document + "\n", encoding="utf-8")
        numbers = tuple(plane.number for plane in read_planes(detection.acquisition.swi))
    written = tuple(out / name for name in _RESULTS if (out / name).is_file())
    return FolderResult(detection.findings, written, numbers)


def pick_study(
    folder: Path, study_uid: str | None = None, rules: RecognitionRules | None = None, *, t2star: bool = False
) -> SeriesSelection:
    """Read a folder and pick the series of its one study (or of the one named).

    Raises
    ------
    InputError
        If there is no study, several with none named, a broken DICOM file, or no SWI.
    """
    studies, unreadable = read_studies(find_files(folder), rules)
    broken = [file for file in unreadable if looks_like_dicom(file)]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise InputError(f"broken DICOM file{more}: {broken[0].why}", where=str(broken[0].path), do="send it again")
    chosen = select_series(choose_study(studies, folder, study_uid), t2star=t2star)
    if not chosen.analysable:
        raise NoSwiError(chosen.why, where=str(folder), do="`cmbnode route` says how each series is recognised")
    return chosen


def choose_study(studies: list[Study], folder: Path, study_uid: str | None) -> Study:
    """Take the only study, or the one named."""
    if not studies:
        raise InputError("no DICOM images in it", where=str(folder))
    listed = ", ".join(study.study_instance_uid for study in studies)
    if study_uid is not None:
        named = [study for study in studies if study.study_instance_uid == study_uid]
        if not named:
            raise InputError(f"no study {study_uid} in it; there is {listed}", where=str(folder))
        return named[0]
    if len(studies) > 1:
        raise InputError(f"{len(studies)} studies in it: {listed}", where=str(folder), do="name one with --study UID")
    return studies[0]


def looks_like_dicom(file: Unreadable) -> bool:
    """Say whether an unreadable file means to be DICOM: by its name, or the prefix of PS3.10 7.1."""
    if file.path.suffix.lower() in {".dcm", ".dicom", ".ima"}:
        return True
    try:
        with file.path.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`; its files appear in `out` when the block ends well, else nothing does.

    Results of an earlier run that this one does not make (a SEG, when there is no lesion any more) are removed.
    """
    if out.exists() and not out.is_dir():
        raise InputError("is not a folder", where=str(out), do="name another with --out")
    staging = None
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
        staging.chmod(0o777 & ~_umask())
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(out)) from error
    try:
        yield staging
        if out.is_dir():
            made = sorted(staging.iterdir(), key=lambda path: path.name == "findings.json")  # the answer comes last
            for path in made:
                path.replace(out / path.name)
            for name in set(_RESULTS) - {path.name for path in made}:
                (out / name).unlink(missing_ok=True)
        else:
            staging.replace(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

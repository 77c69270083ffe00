"""``cmbtrain evaluate``, ``crossval`` and ``calibrate``: how good are the profiles, and do they fit a site?"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import InputError

from .fitting import KindOption

Draws = Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the 95 % intervals.")]
Cohort = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT",
        help="Folder of labelled studies: a site's own, public or simulated; docs/train.md describes the layouts.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def evaluate(
    cohort: Cohort,
    profile: Annotated[list[str], typer.Option(help="Name or TOML file of a profile; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, plots and findings.")],
    split: Annotated[str, typer.Option(help="train, validation, test or all, if the studies name a split.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="Use only the first N studies; 0 uses all.")] = 0,
    kind: KindOption = None,
    device: Device = "auto",
    bootstrap: Draws = 1000,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Analyse every study again, also those that were analysed before.")
    ] = False,
) -> None:
    """Measure profiles on a cohort, from its DICOM files. A stopped run continues where it left off."""
    from pipeline.profile import load_profile
    from training.evaluation.cases import read_cohort
    from training.evaluation.gallery import write_gallery
    from training.evaluation.plots import write_plots
    from training.evaluation.run import require_names, run_profile
    from training.evaluation.summary import CohortMeasurement, by_study, summarise
    from training.evaluation.tables import main_table, report

    cases = read_cohort(cohort, limit, "" if split == "all" else split, kind)
    profiles = [load_profile(name) for name in profile]
    require_names(profiles)
    _make(out)
    summaries, studies, answers = [], {}, {}
    for one in profiles:
        results = list(run_profile(cases, one, out / "findings", device=device, fresh=fresh, say=_say))
        answers[one.name] = results
        studies[one.name] = by_study(results)
        summaries.append(summarise(one.name, results, caveats=one.caveats, draws=bootstrap))
    measured = CohortMeasurement.of(results)
    document = {
        "schema": "cmb-evaluation/1",
        "cohort": str(cohort),
        "measured": vars(measured),
        "profiles": {
            one.name: {"digest": one.digest, **summary.to_json(), "studies": studies[one.name]}
            for one, summary in zip(profiles, summaries, strict=True)
        },
    }
    _write_json(out / "evaluation.json", document)
    page = report(f"Evaluation on {cohort.resolve().name}", measured, summaries, _command())
    (out / "evaluation.md").write_text(page, encoding="utf-8")
    write_plots(out, measured, summaries)
    for name, results in answers.items():
        write_gallery(out / f"gallery-{name}.png", name, results, simulated=measured.simulated)
    typer.echo(f"{measured}\n\n{main_table(summaries)}\n\n{out / 'evaluation.md'}")


def crossval(
    cohort: Cohort,
    profile: Annotated[list[str], typer.Option(help="Name or TOML file of a profile; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for trained profiles, findings and tables.")],
    folds: Annotated[int, typer.Option(min=2, help="Number of folds; no anatomy is in two of them.")] = 5,
    config: Annotated[
        str | None, typer.Option(help="Training configuration [default: PROFILE-gpu or PROFILE-cpu].")
    ] = None,
    pretrained: Annotated[Path | None, typer.Option(help="Weights with which the classifier starts.")] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Also train without augmentation (plain), or only the last layer (frozen), as variants of Afzal 2021; "
            "may be given several times."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Use only the first N studies; 0 uses all.")] = 0,
    kind: KindOption = None,
    device: Device = "auto",
    bootstrap: Draws = 1000,
) -> None:
    """Cross-validate profiles and print the two papers' tables. A stopped run continues where it left off."""
    from pipeline.profile import load_profile
    from training.evaluation.cases import read_cohort
    from training.evaluation.crossval import Training, cross_validate, named_for
    from training.evaluation.papers import paper_tables
    from training.evaluation.run import require_names
    from training.evaluation.summary import CohortMeasurement, summarise
    from training.evaluation.tables import report
    from training.fit.config import default_config

    cases = read_cohort(cohort, limit, kind=kind)
    profiles = [load_profile(name) for name in profile]
    require_names(profiles)
    runs = [
        (named_for(p, way), Training(out / "cache", config or default_config(p.name), pretrained, way, _say))
        for p in profiles
        for way in ("", *(arm or ()))
    ]
    _make(out)
    by_profile = {p.name: cross_validate(cases, p, out, folds=folds, how=how, device=device) for p, how in runs}
    pooled = {name: [result for fold in by for result in fold] for name, by in by_profile.items()}
    summaries = [summarise(p.name, pooled[p.name], caveats=p.caveats, draws=bootstrap) for p, _ in runs]
    measured = CohortMeasurement.of(pooled[profiles[0].name])
    papers = paper_tables(by_profile, measured.simulated)
    document = {
        "schema": "cmb-crossval/1",
        "cohort": str(cohort),
        "folds": [sorted(r.case.name for r in fold) for fold in by_profile[profiles[0].name]],
        "measured": vars(measured),
        "profiles": {summary.profile: summary.to_json() for summary in summaries},
    }
    _write_json(out / "crossval.json", document)
    title = f"Cross-validation on {cohort.resolve().name}, {folds} folds by anatomy"
    (out / "crossval.md").write_text(report(title, measured, summaries, _command()) + f"\n{papers}\n", encoding="utf-8")
    typer.echo(f"{measured}\n\n{papers}\n\n{out / 'crossval.md'}")


def calibrate(
    dataset: Cohort,
    out: Annotated[Path, typer.Option(help="Folder for the profile, its weights and the findings.")],
    profile: Annotated[str, typer.Option(help="Name or TOML file of a trained profile.")] = "default",
    name: Annotated[str | None, typer.Option(help="Name of the new profile [default: PROFILE-site].")] = None,
    false_positives: Annotated[
        float, typer.Option(min=0.01, help="False positives per study that the site accepts.")
    ] = 0.5,
    kind: KindOption = None,
    device: Device = "auto",
    bootstrap: Draws = 1000,
) -> None:
    """Fit a trained profile to a site's labelled studies. Sets its probabilities and thresholds."""
    from pipeline.profile import load_profile
    from training.evaluation.calibration import shown_probability
    from training.evaluation.cases import read_cohort
    from training.evaluation.run import run_profile
    from training.evaluation.site_calibration import calibrate_to, write_calibrated
    from training.evaluation.tables import number, percent

    recipe = load_profile(profile)
    cases = read_cohort(dataset, kind=kind)
    _make(out)
    results = list(run_profile(cases, recipe, out / "findings", device=device, say=_say))
    found = calibrate_to(results, false_positives, bootstrap)
    made = write_calibrated(recipe, found, out, name or f"{recipe.name}-site")
    typer.echo(
        f"{found.studies} studies of {found.subjects} subjects; {found.found} of {found.visible} visible microbleeds "
        "are among the candidates\n"
        f"log odds: {found.offset:+.2f} + {found.slope:.2f} × those of {recipe.name}\n"
        f"thresholds: possible {shown_probability(found.possible)}, definite {shown_probability(found.definite)}\n"
        f"at possible: sensitivity {percent(found.sensitivity)} %, false positives per study "
        f"{number(found.fp_per_study)} (optimistic: the same studies set the thresholds)"
    )
    if found.wanted > found.studies:
        _say(
            f"too few studies for narrow intervals: ±5 points of sensitivity and ±0.25 false positives require about "
            f"{found.wanted} studies like these"
        )
    typer.echo(f"{out / made.name}.toml: digest {made.digest}")


def _command() -> str:
    return shlex.join(["cmbtrain", *sys.argv[1:]])


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", where=str(out), do="name another folder") from error


def _say(line: str) -> None:
    typer.echo(line, err=True)

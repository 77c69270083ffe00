"""``cmbtrain evaluate`` and ``cmbtrain crossval``: how good are the profiles?"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import InputError
from training.commands.fitting import KindOption

Draws = Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the 95 % intervals.")]
Cohort = Annotated[
    Path, typer.Argument(help="Folder of studies, each with its truth.json, or any data set that can be trained on.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def evaluate(
    cohort: Cohort,
    profile: Annotated[list[str], typer.Option(help="Name or TOML file; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, plots and findings.")],
    split: Annotated[str, typer.Option(help="train, validation, test or all, where the truth says so.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many studies; 0: all.")] = 0,
    kind: KindOption = None,
    device: Device = "auto",
    bootstrap: Draws = 1000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Analyse again what was analysed before.")] = False,
) -> None:
    """Measure profiles on a cohort, from DICOM. Stops and goes on where it was."""
    from pipeline.profile import load_profile
    from training.evaluation.cases import read_cohort
    from training.evaluation.gallery import write_gallery
    from training.evaluation.plots import write_plots
    from training.evaluation.run import require_names, run_profile
    from training.evaluation.summary import Measured, by_study, summarise
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
    measured = Measured.of(results)
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
    profile: Annotated[list[str], typer.Option(help="Name or TOML file; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for trained profiles, findings and tables.")],
    folds: Annotated[int, typer.Option(min=2, help="No anatomy is in two of them.")] = 5,
    config: Annotated[
        str | None, typer.Option(help="How networks are trained [default: PROFILE-gpu or PROFILE-cpu].")
    ] = None,
    pretrained: Annotated[Path | None, typer.Option(help="Weights that a classifier starts from.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many studies; 0: all.")] = 0,
    kind: KindOption = None,
    device: Device = "auto",
    bootstrap: Draws = 1000,
) -> None:
    """Train and measure by folds; print the two papers' tables. Stops and goes on where it was."""
    from pipeline.profile import load_profile
    from training.crossval import Training, cross_validate
    from training.evaluation.cases import read_cohort
    from training.evaluation.papers import paper_tables
    from training.evaluation.run import require_names
    from training.evaluation.summary import Measured, summarise
    from training.evaluation.tables import report

    cases = read_cohort(cohort, limit, kind=kind)
    profiles = [load_profile(name) for name in profile]
    require_names(profiles)
    _make(out)
    how = Training(out / "cache", config, pretrained, _say)
    by_profile = {p.name: cross_validate(cases, p, out, folds=folds, how=how, device=device) for p in profiles}
    pooled = {name: [result for fold in by for result in fold] for name, by in by_profile.items()}
    summaries = [summarise(p.name, pooled[p.name], caveats=p.caveats, draws=bootstrap) for p in profiles]
    measured = Measured.of(pooled[profiles[0].name])
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

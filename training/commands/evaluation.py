"""``cmbtrain evaluate`` and ``cmbtrain crossval``: how good are the profiles?"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError

Draws = Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the 95 % intervals.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def evaluate(
    cohort: Annotated[Path, typer.Argument(help="Folder of studies, each with its truth.json.")],
    profile: Annotated[list[str], typer.Option(help="Name or TOML file; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, plots and findings.")],
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many studies; 0: all.")] = 0,
    device: Device = "auto",
    bootstrap: Draws = 1000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Analyse again what was analysed before.")] = False,
) -> None:
    """Measure profiles on a cohort, from DICOM. Stops and goes on where it was."""
    from pipeline.profile import load_profile
    from training.evaluation.cases import read_cohort
    from training.evaluation.plots import write_plots
    from training.evaluation.run import require_names, run_profile
    from training.evaluation.summary import Measured, summarise
    from training.evaluation.tables import main_table, report

    cases = read_cohort(cohort, limit)
    profiles = [load_profile(name) for name in profile]
    require_names(profiles)
    _make(out)
    summaries = []
    for one in profiles:
        results = list(run_profile(cases, one, out / "findings", device=device, fresh=fresh, say=_say))
        summaries.append(summarise(one.name, results, caveats=one.caveats, draws=bootstrap))
    measured = Measured.of(results)
    command = shlex.join(["cmbtrain", *sys.argv[1:]])
    document = {
        "schema": "cmb-evaluation/1",
        "cohort": str(cohort),
        "measured": vars(measured),
        "profiles": {
            one.name: {"digest": one.digest, **summary.to_json()}
            for one, summary in zip(profiles, summaries, strict=True)
        },
    }
    (out / "evaluation.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = report(f"Evaluation on {cohort.resolve().name}", measured, summaries, command)
    (out / "evaluation.md").write_text(page, encoding="utf-8")
    write_plots(out, measured, summaries)
    typer.echo(f"{measured}\n\n{main_table(summaries)}\n\n{out / 'evaluation.md'}")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", where=str(out), do="name another folder") from error


def _say(line: str) -> None:
    typer.echo(line, err=True)

"""``cmbtrain simulate`` and ``cmbtrain insert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.errors import InputError
from training.text import numbered

PRESETS = sorted(p.stem for p in (Path(__file__).parents[1] / "simulation/cohort/presets").glob("*.toml"))
"""Read off the folder, so that the help text needs none of the simulator's packages."""


def _formats(names: list[str]) -> tuple[str, ...]:
    from training.simulation.cohort.studies import FORMATS

    unknown = [n for n in names if n not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}", do=f"use {', '.join(FORMATS)}")
    return tuple(names)


def simulate(
    out: Annotated[Path | None, typer.Option(help="Folder for the studies.")] = None,
    cohort: Annotated[
        list[str] | None, typer.Option(help=f"Cohort file, or {', '.join(PRESETS)}; may be given several times.")
    ] = None,
    anatomy: Annotated[Path | None, typer.Option(help="Folder of labelled heads [default: ICBM152].")] = None,
    label_scheme: Annotated[
        str | None, typer.Option(help="Label scheme of the heads [default: the folder's scheme.toml, else brainweb].")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Make only this set; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Make at most N studies of each set; 0 makes all.")] = 0,
    skip: Annotated[
        int, typer.Option(min=0, help="Leave out the first N studies of each set; they count towards --limit.")
    ] = 0,
    output_format: Annotated[
        list[str] | None,
        typer.Option("--format", help="dicom, nifti or arrays; may be given several times [default: dicom]."),
    ] = None,
    processes: Annotated[int, typer.Option(min=0, help="Heads simulated at the same time; 0 uses every core.")] = 1,
    memory_gb: Annotated[
        float, typer.Option(min=0, help="Memory for all processes; 0 uses three quarters of what is free.")
    ] = 0.0,
    demo: Annotated[Path | None, typer.Option(help="Write only the node's demo study, to this folder.")] = None,
) -> None:
    """Simulate SWI studies with known microbleeds and mimics. A stopped run continues where it left off."""
    if demo is not None:
        from training.simulation.demo import make_demo

        study = make_demo(demo)
        typer.echo(f"{demo}: {len(study.truth.entries)} inclusions")
        return
    if not cohort or out is None:
        raise InputError("nothing to simulate", do="give --cohort NAME --out DIR, or --demo DIR")
    from training.simulation.cohort import Budget, Options, load_cohort, run_cohorts
    from training.simulation.cohort.studies import Format, Output

    formats = cast("tuple[Format, ...]", _formats(output_format or ["dicom"]))
    made = run_cohorts(
        [load_cohort(name) for name in cohort],
        Output(out, formats),
        Options(anatomy, label_scheme, tuple(sets or ()), limit, skip),
        Budget(processes, memory_gb),
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(
        f"{numbered(made.studies, 'study')} ({made.new} new) with {numbered(made.bleeds, 'microbleed')}, "
        f"{made.visible} of them visible, "
        f"{made.size_bytes / 1e9:.2f} GB, {made.seconds:.0f} s"
    )


def insert(
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    dicom: Annotated[Path | None, typer.Option(help="A study with SWI, magnitude and phase.")] = None,
    magnitude: Annotated[Path | None, typer.Option(help="NIfTI magnitude.")] = None,
    phase: Annotated[
        Path | None, typer.Option(help="NIfTI phase; without it, the magnitude is a T2*-weighted gradient echo.")
    ] = None,
    field_strength: Annotated[float, typer.Option(help="Tesla (NIfTI).")] = 3.0,
    echo_time: Annotated[float, typer.Option(help="Milliseconds (NIfTI).")] = 20.0,
    phase_scale: Annotated[
        float, typer.Option(help="Factor that turns phase values into radians, paramagnetic positive (NIfTI).")
    ] = 1.0,
    bleeds: Annotated[float, typer.Option(min=0, help="Median number of microbleeds.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed inserts the same microbleeds.")] = 1,
) -> None:
    """Insert microbleeds and mimics into a real scan. Writes their truth, too."""
    from training.simulation.lesion_sampling import LesionParameters
    from training.simulation.real_scan import insert_random, read_dicom_scan, read_nifti_scan, truth_of
    from training.simulation.writers.identity import StudyIdentity
    from training.simulation.writers.nifti import write_nifti
    from training.simulation.writers.vendors import write_dicom

    if dicom is not None:
        scan = read_dicom_scan(dicom)
    elif magnitude is not None:
        scan = read_nifti_scan(
            magnitude, phase, field_strength_t=field_strength, echo_time_ms=echo_time, phase_scale=phase_scale
        )
    else:
        raise InputError(
            "nothing to insert into", do="give --dicom DIR, or --magnitude FILE with or without --phase FILE"
        )
    study = insert_random(scan, LesionParameters(free_share=0.0, median_count=bleeds), seed)
    out.mkdir(parents=True, exist_ok=True)
    if dicom is not None:
        write_dicom(study, StudyIdentity(f"inserted/{scan.name}/{seed}"), out / "dicom")
    else:
        write_nifti(study, out / "nifti", phase=scan.phase is not None)
    (out / "truth.json").write_text(json.dumps(truth_of(scan, study), indent=1) + "\n")
    entries = study.truth.entries
    typer.echo(f"{out}: {len(entries)} inclusions, {sum(e.seen.visible for e in entries)} visible")

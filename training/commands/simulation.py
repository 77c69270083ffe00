"""``cmbtrain simulate`` and ``cmbtrain insert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.errors import InputError


def _formats(names: list[str]) -> tuple[str, ...]:
    from training.simulation.cohort.work import FORMATS

    unknown = [n for n in names if n not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}", do=f"use {', '.join(FORMATS)}")
    return tuple(names)


def simulate(
    out: Annotated[Path | None, typer.Option(help="Folder for the studies.")] = None,
    cohort: Annotated[
        list[str] | None, typer.Option(help="Cohort file, or high-resolution, low-resolution, stress; may be repeated.")
    ] = None,
    anatomy: Annotated[Path | None, typer.Option(help="Folder of labelled heads [default: ICBM152].")] = None,
    label_scheme: Annotated[
        str | None, typer.Option(help="What the labels mean [default: scheme.toml, or brainweb].")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Only this set; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many studies of each set; 0: all.")] = 0,
    output_format: Annotated[
        list[str] | None, typer.Option("--format", help="dicom, nifti, arrays; may be repeated.")
    ] = None,
    processes: Annotated[int, typer.Option(min=0, help="Studies made at the same time; 0: one a core.")] = 1,
    memory_gb: Annotated[float, typer.Option(min=0, help="Memory for all of them; 0: 3/4 of what is free.")] = 0.0,
    demo: Annotated[Path | None, typer.Option(help="Write the node's demo study to this folder and stop.")] = None,
) -> None:
    """Simulate SWI studies with known bleeds and mimics. Stops and goes on where it was."""
    if demo is not None:
        from training.simulation.demo import make_demo

        study = make_demo(demo)
        typer.echo(f"{demo}: {len(study.truth.entries)} inclusions")
        return
    if not cohort or out is None:
        raise InputError("nothing to simulate", do="give --cohort NAME --out DIR, or --demo DIR")
    from training.simulation.cohort import Budget, Options, load_cohort, run_cohorts
    from training.simulation.cohort.work import Format, Output

    formats = cast("tuple[Format, ...]", _formats(output_format or ["dicom"]))
    made = run_cohorts(
        [load_cohort(name) for name in cohort],
        Output(out, formats),
        Options(anatomy, label_scheme, tuple(sets or ()), limit),
        Budget(processes, memory_gb),
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(
        f"{made.studies} studies ({made.new} new) with {made.bleeds} bleeds, {made.visible} of them visible, "
        f"{made.size_bytes / 1e9:.2f} GB, {made.seconds:.0f} s"
    )


def insert(
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    dicom: Annotated[Path | None, typer.Option(help="A study with SWI, magnitude and phase.")] = None,
    magnitude: Annotated[Path | None, typer.Option(help="NIfTI magnitude.")] = None,
    phase: Annotated[Path | None, typer.Option(help="NIfTI phase.")] = None,
    field_strength: Annotated[float, typer.Option(help="Tesla (NIfTI).")] = 3.0,
    echo_time: Annotated[float, typer.Option(help="Milliseconds (NIfTI).")] = 20.0,
    phase_scale: Annotated[float, typer.Option(help="Factor to radians, paramagnetic positive (NIfTI).")] = 1.0,
    bleeds: Annotated[float, typer.Option(min=0, help="Median number of bleeds.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bleeds.")] = 1,
) -> None:
    """Put bleeds and mimics into a real scan, with their truth."""
    from training.simulation.lesions import LesionParameters
    from training.simulation.real import insert_random, read_dicom_scan, read_nifti_scan
    from training.simulation.writers.identity import StudyIdentity
    from training.simulation.writers.nifti import write_nifti
    from training.simulation.writers.vendors import write_dicom

    if dicom is not None:
        scan = read_dicom_scan(dicom)
    elif magnitude is not None and phase is not None:
        scan = read_nifti_scan(
            magnitude, phase, field_strength_t=field_strength, echo_time_ms=echo_time, phase_scale=phase_scale
        )
    else:
        raise InputError("nothing to insert into", do="give --dicom DIR, or --magnitude FILE --phase FILE")
    study = insert_random(scan, LesionParameters(free_share=0.0, median_count=bleeds), seed)
    out.mkdir(parents=True, exist_ok=True)
    if dicom is not None:
        write_dicom(study, StudyIdentity(f"inserted/{scan.name}/{seed}"), out / "dicom")
    else:
        write_nifti(study, out)
    entries = [e.to_json() for e in study.truth.entries]
    document = {"schema": "cmb-simulated-truth/1", "into": scan.name, "seed": seed, "inclusions": entries}
    (out / "truth.json").write_text(json.dumps(document, indent=1) + "\n")
    visible = sum(e.seen.visible for e in study.truth.entries)
    typer.echo(f"{out}: {len(entries)} inclusions, {visible} visible")

"""``cmbtrain check``, ``cache``, ``fit`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError

DatasetArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Folder; docs/train.md says how it is laid out.")
]
KindOption = Annotated[
    str | None, typer.Option(help="simulated, valdo, dou, points or site [default: found by the layout].")
]


def check(dataset: DatasetArgument, kind: KindOption = None) -> None:
    """List every problem of a data set before any training. Exit status 2 when there is an error."""
    from training.datasets.check import check as find_problems
    from training.datasets.kinds import open_dataset

    records = open_dataset(dataset, kind)
    problems = []
    for problem in find_problems(records):
        problems.append(problem)
        typer.echo(str(problem))
    errors = sum(p.error for p in problems)
    typer.echo(f"{len(records)} studies, {errors} errors, {len(problems) - errors} notes")
    if errors:
        raise InputError(f"{errors} errors", where=str(dataset), do="correct them before training")


def cache(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder of the cache.")],
    kind: KindOption = None,
    part_mb: Annotated[int, typer.Option(min=1, help="Largest part, MiB; each can be carried alone.")] = 56,
    limit: Annotated[int, typer.Option(min=0, help="At most so many studies; 0: all.")] = 0,
    coarse: Annotated[int, typer.Option(min=1, max=8, help="Keep every so many steps: 4 halves the size.")] = 1,
    magnitude: Annotated[bool, typer.Option(help="Keep the magnitude.")] = True,
) -> None:
    """Prepare a data set for training. Cropped to the brain, 8 bits a value; goes on where it stopped."""
    from training.datasets.cache import MEBIBYTE, make_cache
    from training.datasets.kinds import open_dataset

    records = open_dataset(dataset, kind)
    made = make_cache(records, out, part_mb=part_mb, limit=limit, coarse=coarse, magnitude=magnitude, say=_say)
    size = sum(path.stat().st_size for path in made) / MEBIBYTE
    typer.echo(f"{out}: {len(made)} studies, {size:.0f} MiB in {len({p.parent for p in made})} parts")


def fit(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Name of a profile, or a TOML file.")],
    data: Annotated[list[Path], typer.Option(help="Folder of a cache, or a part of one; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder of the training.")],
    config: Annotated[
        str | None, typer.Option(help="TOML file, or a name such as heatmap-gpu [default: for this machine].")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Weights (.pth, .safetensors) that the classifier starts from.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="A trained profile whose networks the stages start from."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop each stage after so long, to go on later; 0: never.")] = 0,
) -> None:
    """Train all learned stages of a profile. Stops and goes on where it was."""
    import torch

    from pipeline.profile import load_profile
    from training.datasets.cache import read_cache
    from training.fit.config import load_config
    from training.fit.job import Job
    from training.fit.recipe import without_weights
    from training.fit.run import fit as train_profile
    from training.fit.split import split_studies

    recipe = load_profile(profile)
    settings = load_config(config or f"{recipe.name}-{'gpu' if torch.cuda.is_available() else 'cpu'}")
    split = split_studies(read_cache(data), settings.validation_share)
    _say(f"{len(split.train)} studies to train on, {len(split.validation)} to validate with")
    begin = load_profile(start) if start else None
    fitted = train_profile(Job(without_weights(recipe), settings, split, out, pretrained, begin, minutes, _say))
    typer.echo(f"{out}: thresholds {fitted['thresholds']}; go on with `cmbtrain export {out} --profile {profile}`")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training.")],
    profile: Annotated[str, typer.Option(help="The profile that was trained.")],
    out: Annotated[Path, typer.Option(help="Folder for profile, weights and model card.")],
    name: Annotated[str | None, typer.Option(help="What to call it [default: as it is].")] = None,
) -> None:
    """Write a trained profile: its TOML file, its weights, its model card."""
    from pipeline.profile import load_profile
    from training.export import export as write_profile

    written = write_profile(run, out, load_profile(profile), name)
    typer.echo(f"{out / written.name}.toml: digest {written.digest}")


def _say(line: str) -> None:
    typer.echo(line, err=True)

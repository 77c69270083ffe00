"""``cmbtrain fit-forest``: the weights of the classical rival, by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.fitting import DatasetArgument, KindOption


def fit_forest(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder for the profile, its weights and the features.")],
    profile: Annotated[str, typer.Option(help="Profile whose classifier is a forest.")] = "frst-forest",
    seed: Annotated[int, typer.Option(min=0, help="The same seed and studies give the same file.")] = 0,
    kind: KindOption = None,
) -> None:
    """Grow the forest of a profile. Studies of a test split are left out; goes on where it stopped."""
    from pipeline.profile import load_profile
    from training.datasets.kinds import open_dataset
    from training.forest import fit_forest as fit

    recipe = load_profile(profile)
    records = [record for record in open_dataset(dataset, kind) if record.split != "test"]
    out.mkdir(parents=True, exist_ok=True)
    path = fit(records, recipe, out, seed=seed, say=lambda line: typer.echo(line, err=True))
    typer.echo(f"{path}: digest {load_profile(str(path)).digest}; use it with --profile {path}")

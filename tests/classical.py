"""Rules that send every SWI to the classical profile: bleeds drawn into phantoms are not what networks have learnt."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from node.config import Settings


def classical_routing(folder: Path) -> Path:
    """Write the package's own rules with the profile ``frst``, and return where."""
    text = files("node").joinpath("routing.toml").read_text(encoding="utf-8")
    assert 'profile = "default"' in text
    path = folder / "classical-routing.toml"
    path.write_text(text.replace('profile = "default"', 'profile = "frst"'), encoding="utf-8")
    return path


def classical_settings(folder: Path) -> Settings:
    """Settings of a node in `folder` that routes by them."""
    return Settings(data_dir=folder, routing_file=classical_routing(folder))

"""The classical profile in haste, and rules that send every SWI to it.

Bleeds drawn into phantoms are not what networks have learnt; and a head of ellipsoids needs neither a fine skull
removal nor an exact place on the atlas.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from node.settings import Settings
from pipeline.profile import Profile, load_profile
from training.fit.profile_files import write_profile

HASTE = {
    "brain": {"grid_mm": 2.0},
    "location": {"grid_mm": 6.0, "start_rounds": 10, "rounds": 15, "deformation_rounds": 0},
}


def quick_profile(base: str = "frst", **tables: object) -> Profile:
    """A classical profile with little skull removal and registration, and other `tables`."""
    return Profile.model_validate({**load_profile(base).model_dump(), **HASTE, **tables})


def quick_file(folder: Path) -> Path:
    """Write the quick profile into `folder`, under the name ``frst``."""
    return write_profile(quick_profile(), folder / "frst-quick.toml")


def classical_routing(folder: Path) -> Path:
    """Write the package's own rules with the quick profile, and return where."""
    text = files("node.route").joinpath("routing.toml").read_text(encoding="utf-8")
    assert 'profile = "default"' in text
    path = folder / "classical-routing.toml"
    path.write_text(text.replace('profile = "default"', f'profile = "{quick_file(folder)}"'), encoding="utf-8")
    return path


def classical_settings(folder: Path) -> Settings:
    """Settings of a node in `folder` that routes by them."""
    return Settings(data_dir=folder, routing_file=classical_routing(folder))

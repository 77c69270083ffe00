"""Profiles: complete, checked when read, and the same digest only for the same recipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ProfileError
from pipeline.profile import Profile, available_profiles, load_profile

SMALL = """
[candidates]
method = "kmeans"
[rating]
offset = -1.0
weights = { contrast = 2.0 }
[thresholds]
possible = 0.3
definite = 0.7
"""
HASH = "ab" * 32


def _write(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def _load(folder: Path, text: str) -> Profile:
    return load_profile(_write(folder, text))


def test_every_profile_of_the_product_can_be_loaded_by_its_name() -> None:
    profiles = available_profiles()
    assert "frst" in [p.name for p in profiles]
    for profile in profiles:
        assert load_profile(profile.name) == profile
        assert profile.description
        assert len(profile.digest) == 64


def test_the_frst_profile_states_every_parameter_of_its_method() -> None:
    import tomllib

    from pipeline.candidates import frst
    from pipeline.profile import FOLDER

    written = tomllib.loads((FOLDER / "frst.toml").read_text())
    assert set(written["candidates"]["parameters"]) == set(frst.Parameters.model_fields)
    profile = load_profile("frst")
    for table in ("brain", "measure", "shape", "rating", "suits", "quality"):
        assert set(written[table]) == set(type(getattr(profile, table)).model_fields)


def test_a_profile_of_ones_own_is_named_after_its_file(tmp_path: Path) -> None:
    profile = _load(tmp_path, SMALL)
    assert profile.name == "mine"
    assert profile.candidates.method == "kmeans"
    assert profile.candidates.parameters["clusters"] == 4


def test_the_digest_changes_with_whatever_changes_results_and_with_nothing_else(tmp_path: Path) -> None:
    weights = f'[candidates.weights]\nname = "w"\nfile = "a.safetensors"\nsha256 = "{HASH}"\n'
    same = [SMALL, 'description = "other words"\n' + SMALL, SMALL + "[suits]\n", "max_lesions = 200\n" + SMALL]
    other = [
        SMALL.replace("0.3", "0.31"),
        SMALL.replace("[rating]", "[candidates.parameters]\nclusters = 5\n[rating]"),
        SMALL + "[brain]\nclosing_mm = 9.0\n",
        SMALL + weights,
        SMALL + weights.replace(HASH, "cd" * 32),
    ]
    plain = {_load(tmp_path, text).digest for text in same}
    assert len(plain) == 1
    assert len(plain | {_load(tmp_path, text).digest for text in other}) == 1 + len(other)
    moved = _load(tmp_path, SMALL + weights.replace("a.safetensors", "elsewhere/b.safetensors"))
    assert moved.digest == _load(tmp_path, SMALL + weights).digest
    assert moved.weights == {"w": HASH}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "candidates: this entry is required"),
        ("this is not toml", "is not TOML"),
        (SMALL.replace("kmeans", "magic"), "no method 'magic' in pipeline.candidates"),
        (SMALL.replace("kmeans", "../os"), "candidates.method"),
        (
            SMALL.replace("[rating]", "[candidates.parameters]\nclosters = 4\n[rating]"),
            "closters: there is no such entry",
        ),
        (SMALL.replace("[rating]", "[candidates.parameters]\nclusters = 1\n[rating]"), "clusters: it must be"),
        (SMALL.replace("[rating]", "[ratings]"), "ratings: there is no such entry; did you mean rating?"),
        (SMALL.replace("0.3", "0.9"), "possible must not be above definite"),
        (SMALL.replace("0.3", "nan"), "thresholds.possible"),
        (SMALL + '[classifier]\nmethod = "none_such"\n', "no method 'none_such' in pipeline.classifiers"),
        (SMALL.replace("[rating]\noffset = -1.0\nweights = { contrast = 2.0 }\n", ""), "a classifier or a rating"),
        (SMALL + '[candidates.weights]\nname = "w"\nfile = "w"\nsha256 = "12"\n', "candidates.weights.sha256"),
        ('caveats = [""]\n' + SMALL, "one line of text"),
        ('name = "a b"\n' + SMALL, "name: String should match"),
    ],
)
def test_a_wrong_profile_is_refused_in_one_line_that_says_where(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ProfileError) as caught:
        _load(tmp_path, text)
    assert why in str(caught.value)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "../frst", "", "a/b"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ProfileError, match=r"use one of: .*frst"):
        load_profile(name)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(str(tmp_path / "missing.toml"))


def test_reading_the_profiles_needs_neither_torch_nor_simpleitk() -> None:
    code = (
        "import sys; from pipeline.profile import load_profile; load_profile('frst');"
        "sys.exit(bool({'torch', 'SimpleITK'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Which recipe, and which source, do weights belong to? What a training must not find changed when it is exported."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from pipeline.profile import Profile


def without_weights(profile: Profile) -> Profile:
    """The recipe as it is before any training."""
    stages = {"candidates": profile.candidates, "classifier": profile.classifier}
    bare = {n: s.model_copy(update={"weights": None}) for n, s in stages.items() if s is not None}
    return Profile.model_validate({**profile.model_dump(), **{n: s.model_dump() for n, s in bare.items()}})


def recipe_digest(profile: Profile) -> str:
    """SHA-256 over all that the networks of a profile depend on: not its name, words, thresholds and weights."""
    left_out = dict.fromkeys(("name", "description", "caveats", "thresholds", "suits", "quality", "location"), True)
    document = without_weights(profile).model_dump(mode="json", exclude=left_out)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def commit() -> str:
    """The commit of the source, marked when files differ from it; ``unknown`` outside a repository."""
    folder = Path(__file__).parent
    try:
        asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"

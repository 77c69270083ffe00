"""How is a trained profile written? As TOML beside its weights, complete, so that its path is enough to run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.profile import Profile
from pipeline.weights import Weights


def weights_of(path: Path, name: str) -> Weights:
    """Describe a weights file, by its hash."""
    return Weights(name=name, file=path.absolute(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def write_profile(profile: Profile, path: Path) -> Path:
    """Write a profile; weights in its folder or below are named from there, so that the folder can be moved."""
    document = profile.model_dump(mode="json")
    for stage in (document["candidates"], document["classifier"]):
        if stage and stage["weights"]:
            file = Path(stage["weights"]["file"])
            inside = file.is_relative_to(path.parent.absolute())
            stage["weights"]["file"] = str(file.relative_to(path.parent.absolute()) if inside else file)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(_lines(document)) + "\n", encoding="utf-8")
    return partial.replace(path)


def _lines(table: Mapping[str, Any], name: str = "") -> list[str]:
    """TOML of nested tables; its strings, numbers and lists are written as in JSON, and nothing stands for null."""
    own = [f"{_key(k)} = {json.dumps(v)}" for k, v in table.items() if v is not None and not isinstance(v, dict)]
    lines = ["", f"[{name}]", *own] if name and own else own
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{name}.{_key(key)}" if name else _key(key))
    return lines


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)

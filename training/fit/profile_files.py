"""How is a trained profile written? As TOML beside its weights, complete, so that its path is enough to run it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.networks.weights import Weights
from pipeline.profile import Profile


def weights_of(path: Path, name: str) -> Weights:
    """Describe a weights file, by its hash."""
    return Weights(name=name, file=path.absolute(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def write_profile(profile: Profile, path: Path) -> Path:
    """Write a profile; weights in its folder or below are named from there, so that the folder can be moved."""
    document = profile.model_dump(mode="json", exclude_none=True)
    folder = path.parent.absolute()
    for stage in (document["candidates"], document.get("classifier", {})):
        if weights := stage.get("weights"):
            file = Path(weights["file"])
            weights["file"] = str(file.relative_to(folder) if file.is_relative_to(folder) else file)
    partial = path.with_suffix(".partial")
    partial.write_text(to_toml(document), encoding="utf-8")
    return partial.replace(path)


def to_toml(document: dict[str, Any], table: str = "") -> str:
    """Write plain data as TOML: values first, then tables."""
    values = {k: v for k, v in document.items() if not isinstance(v, dict)}
    tables = {k: v for k, v in document.items() if isinstance(v, dict)}
    lines = [f"[{table}]"] if table and (values or not tables) else []
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    text = "\n".join(lines) + "\n\n" if lines else ""
    return text + "".join(to_toml(v, f"{table}.{k}" if table else k) for k, v in tables.items())

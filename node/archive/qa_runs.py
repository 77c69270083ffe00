"""What did the runs of site QA measure? One JSON file per run, in the data folder; no study of a patient."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "qa"
"""Folder in the data folder; its files are named after the time of the run, in UTC."""


@dataclass(frozen=True)
class FoundMicrobleed:
    """A planted microbleed that was found: its number in the truth, and what was measured."""

    number: int
    volume_mm3: float
    diameter_mm: float
    probability: float


@dataclass(frozen=True)
class QaRun:
    """What one run measured.

    Parameters
    ----------
    phantom : str
        Digest of the truth, so that only runs of the same phantom are compared.
    profile_digest : str
        Changes with every threshold and weight of the profile.
    false : int
        Findings where no microbleed was planted.
    seconds, stages : mapping of str to float
        Duration of each step of the route, and of each stage of the analysis.
    faults : tuple of str
        What is wrong by itself: the study did not come through, or results contradict each other or the truth.
    differences : tuple of str
        What differs from the last good run.
    accepted : bool
        The differences are wanted; later runs are compared with this one.
    """

    at: datetime
    study_instance_uid: str
    phantom: str
    planted: int
    software: str = ""
    profile: str = ""
    profile_digest: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)
    found: tuple[FoundMicrobleed, ...] = ()
    false: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    accepted: bool = False

    @property
    def good(self) -> bool:
        """Whether later runs are compared with this one."""
        return not self.faults and (self.accepted or not self.differences)

    @property
    def sensitivity(self) -> float:
        """Share of the planted microbleeds that was found."""
        return len(self.found) / self.planted if self.planted else 0.0

    @property
    def alarm(self) -> str:
        """What is wrong, in one line; empty if the run is good."""
        return "" if self.good else "; ".join((*self.faults, *self.differences))

    def to_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return {**asdict(self), "at": self.at.isoformat(), "sensitivity": round(self.sensitivity, 4), "good": self.good}


def _run(document: Mapping[str, Any]) -> QaRun:
    known = {name: value for name, value in document.items() if name not in ("sensitivity", "good")}
    known |= {
        "at": datetime.fromisoformat(document["at"]),
        "found": tuple(FoundMicrobleed(**one) for one in document["found"]),
        "faults": tuple(document["faults"]),
        "differences": tuple(document["differences"]),
    }
    return QaRun(**known)


def add_run(data_dir: Path, run: QaRun) -> None:
    """Add a run to the trend."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    name = f"{run.at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.json"
    incomplete = folder / f".{name}"
    with incomplete.open("w", encoding="utf-8") as file:
        json.dump(run.to_json(), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    incomplete.replace(folder / name)


def read_runs(data_dir: Path) -> list[QaRun]:
    """Every run, the oldest first."""
    return [_run(json.loads(path.read_text(encoding="utf-8"))) for path in _files(data_dir)]


def last_run(data_dir: Path) -> QaRun | None:
    """The newest run, without reading the years before."""
    files = _files(data_dir)
    return _run(json.loads(files[-1].read_text(encoding="utf-8"))) if files else None


def _files(data_dir: Path) -> list[Path]:
    return sorted(path for path in (data_dir / FOLDER).glob("*.json") if not path.name.startswith("."))

"""How long does an analysis take, stage by stage, and how much memory? One simulated study, one process a run.

    python -m benchmarks.detect [--study FOLDER] [--profile default …] [--runs 3] [--columns 512] [--both-precisions]

Each run is a process of its own, so that memory is its own and nothing is warm but the file cache. `load` is what a
worker pays once: interpreter and libraries. With ``--both-precisions`` a second table shows what a processor would take
that does not multiply bfloat16, in turns with the first.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .studies import simulated_study, widen


def once(study: Path, profile: str, *, float32: bool) -> None:
    """Analyse in this process and print the figures as JSON."""
    started = time.perf_counter()
    from pipeline.detect import detect
    from pipeline.networks import hardware
    from pipeline.profile import load_profile
    from pipeline.read.study import find_files, read_studies, select_series

    if float32:
        hardware.multiplies_bfloat16 = lambda: False  # type: ignore[assignment]
    recipe = load_profile(profile)
    loaded = time.perf_counter()
    studies, _ = read_studies(find_files(study))
    detection = detect(select_series(studies[0]), recipe)
    figures = {
        "load": loaded - started,
        "headers": time.perf_counter() - loaded - sum(detection.findings.timing_s.values()),
        **detection.findings.timing_s,
        "all but load": time.perf_counter() - loaded,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps({"figures": figures, "shape": detection.acquisition.swi.array.shape}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, help="folder of one study; by default one is simulated")
    parser.add_argument("--profile", nargs="+", default=["default"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--columns", type=int, default=0, help="of a larger field of view, with more air in it")
    parser.add_argument("--both-precisions", action="store_true", help="also without bfloat16")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--float32", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        once(given.study, given.profile[0], float32=given.float32)
        return
    with tempfile.TemporaryDirectory() as folder:
        study = given.study or simulated_study(Path(folder) / "study")
        if given.columns:
            study = widen(study, Path(folder) / "wide", given.columns)
        for profile in given.profile:
            measure(study, profile, given.runs, [False, True] if given.both_precisions else [False])


def measure(study: Path, profile: str, runs: int, precisions: list[bool]) -> None:
    command = [sys.executable, "-m", "benchmarks.detect", "--once", "--study", str(study), "--profile", profile]
    done: dict[bool, list[Any]] = {float32: [] for float32 in precisions}
    for _ in range(runs):
        for float32 in precisions:
            words = [*command, "--float32"] if float32 else command
            done[float32].append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    for float32 in precisions:
        table(profile + (", all in float32" if float32 else ""), done[float32])


def table(name: str, done: list[Any]) -> None:
    k, j, i = done[0]["shape"]
    print(f"\nprofile {name}, {i}×{j}×{k} voxels, {len(done)} runs, simulated images\n")
    print("| stage | median s | min | max |\n|---|---:|---:|---:|")
    for stage in done[0]["figures"]:
        values = [run["figures"][stage] for run in done]
        print(f"| {stage} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()

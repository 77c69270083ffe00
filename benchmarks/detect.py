"""How long does an analysis take, stage by stage, and how much memory? One simulated study, one process a run.

    python -m benchmarks.detect [--study FOLDER] [--profile default …] [--runs 3] [--columns 512]

Each run is a process of its own, so that memory is its own and nothing is warm but the file cache. `load` is what a
worker pays once: interpreter and libraries.
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

from .studies import simulated_study, widen


def once(study: Path, profile: str) -> None:
    """Analyse in this process and print the figures as JSON."""
    started = time.perf_counter()
    from pipeline.detect import detect
    from pipeline.profile import load_profile
    from pipeline.read.study import find_files, read_studies, select_series

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
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        once(given.study, given.profile[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        study = given.study or simulated_study(Path(folder) / "study")
        if given.columns:
            study = widen(study, Path(folder) / "wide", given.columns)
        for profile in given.profile:
            table(study, profile, given.runs)


def table(study: Path, profile: str, runs: int) -> None:
    command = [sys.executable, "-m", "benchmarks.detect", "--once", "--study", str(study), "--profile", profile]
    done = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs)]
    k, j, i = done[0]["shape"]
    print(f"\nprofile {profile}, {i}×{j}×{k} voxels, {runs} runs, simulated images\n")
    print("| stage | median s | min | max |\n|---|---:|---:|---:|")
    for name in done[0]["figures"]:
        values = [run["figures"][name] for run in done]
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()

"""How long does `cmbnode up` take to start and to stop on an empty folder, and how much memory do its parts need?

    python -m benchmarks.start [--runs 3]

Memory is the proportional set size: a page that several processes share counts once in all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import psutil

from tests.ports import free_port

_SETTLED_S = 5.0


def once() -> dict[str, float]:
    """Start a node, let it idle, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"DATA_DIR": folder, "RECEIVER__PORT": str(free_port()), "WORKLIST__PORT": str(free_port())}
        environment = os.environ | {f"CMBNODE_{name}": value for name, value in settings.items()}
        started = time.perf_counter()
        node = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "up"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            if node.stdout is None or "is ready" not in node.stdout.readline():
                raise SystemExit("the node does not start; see what `cmbnode up` says")
            ready = time.perf_counter() - started
            family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
            processor = sum(sum(process.cpu_times()[:2]) for process in family)
            time.sleep(_SETTLED_S)
            memory = sum(process.memory_full_info().pss for process in family if process.is_running()) / 1e6
        finally:
            stopping = time.perf_counter()
            node.terminate()
            node.wait(60)
        return {
            "ready, s": ready,
            "processor until then, s": processor,
            "stopped, s": time.perf_counter() - stopping,
            "memory at rest, MB": memory,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = [once() for _ in range(parser.parse_args().runs)]
    print("| | median | min | max |\n|---|---:|---:|---:|")
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")


if __name__ == "__main__":
    main()

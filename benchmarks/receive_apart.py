"""What could a second receiving process bring at best? Two nodes that share nothing, beside one.

    python -m benchmarks.receive_apart [--images 400] [--repeats 3]

Each node has its own folder and ledger, so that neither waits for the other; each takes half of the associations.
Images, senders and processor time are those of :mod:`benchmarks.receive`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .receive import WARM_UP_IMAGES, cpu_seconds, make_images, node, send, send_shared

ASSOCIATIONS = (2, 4, 16)


def measure(nodes: int, folders: Sequence[Path], warm_up: Sequence[Path], work: Path) -> tuple[float, float]:
    """Images per second of so many nodes together, and processor time per image, ms."""
    count = sum(len(list(folder.iterdir())) for folder in folders)
    with ExitStack() as running, tempfile.TemporaryDirectory(dir=work) as store:
        servers = [running.enter_context(node(Path(store, str(number)), None)) for number in range(nodes)]
        for server in servers:
            send(server, list(warm_up), None)
        before = sum(map(cpu_seconds, servers))
        seconds = send_shared([(servers[n % nodes], folder) for n, folder in enumerate(folders)], None)
        used = sum(map(cpu_seconds, servers)) - before
    return count / seconds, 1000 * used / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="images a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| associations | one node, images/s | two nodes | ratio | processor ms per image, one node | two nodes |")
    print("|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        warm_up = make_images(work, WARM_UP_IMAGES, 1, "warm-up")
        for associations in ASSOCIATIONS:
            folders = make_images(work, options.images, associations, str(associations))
            rounds = [
                (measure(1, folders, warm_up, work), measure(2, folders, warm_up, work)) for _ in range(options.repeats)
            ]
            one, two = (statistics.median(both[n][0] for both in rounds) for n in range(2))
            times = (f"{statistics.median(both[n][1] for both in rounds):.1f}" for n in range(2))
            print(f"| {associations} | {one:.0f} | {two:.0f} | {two / one:.2f} | {' | '.join(times)} |", flush=True)


if __name__ == "__main__":
    main()

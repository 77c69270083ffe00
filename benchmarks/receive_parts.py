"""Do two parts of the receiver earn their lines: the shared commit, and the node's own command sets?

    python -m benchmarks.receive_parts [--instances 240] [--sync-ms 5] [--repeats 3]

The first table enters instances in a SQLite ledger from 1, 4 and 16 threads, each with a commit of its own or sharing
commits (:mod:`node.ledger.group_commit`); with ``--sync-ms`` every ``fsync`` takes that much longer, as on a slow disk
(a library that a C compiler builds for the run is loaded before the others). The second compares the processor time
that :mod:`node.receive.command_sets` and pynetdicom need to read a C-STORE request and to write its response.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from node.ledger import Ledger, NewInstance
from node.receive.command_sets import decode_request, encode_response
from tests.node.receiving import slices, store_command

from .ledger import record

THREADS = (1, 4, 16)
SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
static void pause_(void) {
    double ms = atof(getenv("SYNC_MS"));
    struct timespec t = {(time_t)(ms / 1000), (long)((ms - 1000 * (long)(ms / 1000)) * 1e6)};
    nanosleep(&t, 0);
}
int fsync(int fd) { pause_(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { pause_(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


def rate(record_instance: Callable[[NewInstance], object], threads: int, instances: int) -> float:
    """Instances per second of `threads` that send a series each."""

    def send(series: int) -> None:
        for number in range(instances // threads):
            record_instance(record(series, number))

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    return instances / (time.perf_counter() - start)


def measure_commits(instances: int, repeats: int) -> None:
    print("| threads | a commit each, instances/s | shared commits, instances/s |")
    print("|---:|---:|---:|")
    for threads in THREADS:
        rates: dict[bool, list[float]] = {False: [], True: []}
        for shared in (False, True) * repeats:
            with tempfile.TemporaryDirectory() as folder:
                ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite3")
                ledger.upgrade()
                enter = ledger.record_instance if shared else ledger._record_alone
                rates[shared].append(rate(enter, threads, instances))
                ledger.close()
        own, together = statistics.median(rates[False]), statistics.median(rates[True])
        print(f"| {threads} | {own:.0f} | {together:.0f} |", flush=True)


def microseconds(work: Callable[[], object]) -> float:
    """Processor time of one call, the best of several rounds."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(400):
            work()
        rounds.append((time.process_time() - start) / 400)
    return min(rounds) * 1e6


def measure_command_sets() -> None:
    (image,) = slices(1)
    command, answer = store_command(image), C_STORE()
    answer.MessageID = answer.MessageIDBeingRespondedTo = 7
    answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    answer.Status = 0x0000

    def read() -> object:
        message = C_STORE_RQ()
        message.command_set, message.data_set = decode(BytesIO(command), True, True), BytesIO()
        return message.message_to_primitive()

    def write() -> object:
        message = C_STORE_RSP()
        message.primitive_to_message(answer)
        return encode(message.command_set, True, True)

    print("| command set | the node, µs | pynetdicom, µs |\n|---|---:|---:|")
    print(f"| C-STORE-RQ read | {microseconds(lambda: decode_request(command)):.0f} | {microseconds(read):.0f} |")
    print(f"| C-STORE-RSP written | {microseconds(lambda: encode_response(answer)):.0f} | {microseconds(write):.0f} |")


def with_slow_sync(sync_ms: float) -> None:
    """Run this command again with a slow ``fsync``."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "slow_sync.c", Path(folder) / "slow_sync.so"
        source.write_text(SLOW_SYNC)
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        environment = {**os.environ, "SYNC_MS": str(sync_ms), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", "benchmarks.receive_parts", *sys.argv[1:]]
        subprocess.run(command, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=240, help="instances per measurement")
    parser.add_argument("--sync-ms", type=float, default=0.0, help="how much longer each fsync takes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.sync_ms and "SYNC_MS" not in os.environ:
        with_slow_sync(options.sync_ms)
        return
    measure_commits(options.instances, options.repeats)
    print()
    measure_command_sets()


if __name__ == "__main__":
    main()

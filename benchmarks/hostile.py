"""What happens to hostile input: mutated associations, mutated DICOM files sent by C-STORE or read by the pipeline?

    python -m benchmarks.hostile [--associations 20000] [--files 2000] [--commands 6] [--seed 1]

A receiver runs in a process of its own, on loopback. Four clients send it whole conversations (A-ASSOCIATE-RQ, C-STORE,
C-ECHO, A-RELEASE-RQ) of which one level is mutated: the bytes of any PDU, the order of the PDUs, the negotiation, the
command set, or the data set. Then mutated files of several transfer syntaxes are sent by C-STORE, and read by the
pipeline (headers, choice of series, pixels, the headers of the result) each in place of one slice of a series; a few go
through ``cmbnode detect``. A mutation is one to four of: flip a bit, set a byte, write an extreme number, insert,
delete, repeat, truncate. Everything follows from the seed.

An unexpected exception is one that the node did not raise itself to refuse the input (a ``CmbError``), that the
receiver logs as an error, or that it answers as a failure of its own (0xA700, 0x0110). Prints one table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from pydicom import Dataset
from pydicom.uid import UID

from node.archive import content_start
from node.demo.run import STUDY
from pipeline.errors import CmbError
from pipeline.read.study import read_studies, select_series
from pipeline.read.volume import read_acquisition
from pipeline.results.source import read_source
from tests.dicom_factory import TRANSFER_SYNTAXES, classic, write
from tests.node.receiving import associate_request, echo_command, encoded, p_data, pdu, store_command
from tests.ports import free_port

LEVELS = ("PDU", "order", "negotiation", "command set", "data set")
SYNTAXES = ("explicit", "implicit", "big-endian", "deflated", "jpeg-ls", "rle")
COMPRESSED_EVERY = 20  # decoding a compressed file starts a process
CLIENTS = 4
ECHO, MR = 1, 3  # presentation context ids of `associate_request`
SILENCE_S = 20.0
"""A receiver that says nothing for longer than this hangs; its own limit for a silent peer is 5 s."""


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    rss_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Receiver:
    """A receiver in a process of its own, and its log."""

    port: int
    process: psutil.Process
    log: Path

    def usage(self) -> Usage:
        """Return what the process holds now."""
        return Usage(self.process.memory_info().rss / 1e6, self.process.num_fds(), self.process.num_threads())

    def errors(self) -> list[dict[str, str]]:
        """Lines that the receiver logged as errors: exceptions that nobody expected."""
        lines = [line for line in self.log.read_text().splitlines() if line]
        documents = [json.loads(line) if line.startswith("{") else {"level": "error", "event": line} for line in lines]
        return [document for document in documents if document.get("level") in ("error", "critical")]


@contextmanager
def running_receiver(folder: Path) -> Iterator[Receiver]:
    port, log = free_port(), folder / "receiver.log"
    own = {
        "CMBNODE_DATA_DIR": str(folder / "data"), "CMBNODE_LOG_FORMAT": "json", "CMBNODE_RECEIVER__PORT": str(port),
        "CMBNODE_RECEIVER__IDLE_TIMEOUT_S": "5", "CMBNODE_ARCHIVE__FREE_DISK_MB": "0",
    }  # fmt: skip
    code = "from node.settings import load_settings; from node.receive.receiver import run_receiver; "
    command = [sys.executable, "-c", code + "run_receiver(load_settings())"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **own}, stderr=output)
        try:
            deadline = time.monotonic() + 60
            while not echoes(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the receiver does not start: {log.read_text()}")
                time.sleep(0.2)
            yield Receiver(port, psutil.Process(process.pid), log)
            process.terminate()
            if process.wait(60) != 0:
                raise RuntimeError(f"the receiver ended with status {process.returncode}")
        finally:
            process.kill()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes."""
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated) + 1)
        length = rng.choice((1, 2, 4, 16, rng.randint(1, 1000)))
        match rng.randrange(7):
            case 0 if at < len(mutated):
                mutated[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(mutated):
                mutated[at] = rng.choice((0, 1, 0x20, 0x5C, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                number = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, rng.randrange(2**32)))
                layout = rng.choice(("<L", ">L")) if number > 0xFFFF or rng.random() < 0.5 else rng.choice(("<H", ">H"))
                packed = struct.pack(layout, number)
                mutated[at : at + len(packed)] = packed
            case 3:
                mutated[at:at] = rng.randbytes(length)
            case 4:
                del mutated[at : at + length]
            case 5:
                mutated[at:at] = mutated[at : at + length]
            case 6 if rng.random() < 0.3:
                del mutated[at:]
    return bytes(mutated)


def conversation(level: str, image: Dataset, rng: random.Random) -> bytes:
    """The PDUs of one association, mutated at one level."""
    request, command, data = associate_request(), store_command(image), encoded(image)
    if level == "negotiation":
        request = pdu(1, mutate(request[6:], rng))
    if level == "command set":
        command = mutate(command, rng)
    if level == "data set":
        data = mutate(data, rng)
    half = len(data) // 2
    pdus = [request, p_data(MR, 3, command), p_data(MR, 0, data[:half]), p_data(MR, 2, data[half:])]
    pdus += [p_data(ECHO, 3, echo_command()), pdu(5, bytes(4))]
    if level == "PDU":
        at = rng.randrange(len(pdus))
        pdus[at] = mutate(pdus[at], rng)
    if level == "order":
        for _ in range(rng.randint(1, 3)):
            at, other = rng.randrange(len(pdus)), rng.randrange(len(pdus))
            match rng.randrange(3):
                case 0:
                    pdus[at], pdus[other] = pdus[other], pdus[at]
                case 1:
                    pdus.insert(at, pdus[other])
                case 2 if len(pdus) > 1:
                    del pdus[at]
    return b"".join(pdus)


def exchange(port: int, data: bytes) -> str:
    """Send a conversation, read all that the receiver answers, and say what that was."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                answer += piece
        except TimeoutError:
            return "no answer: the receiver hangs"
        except OSError:  # it has dropped the connection
            pass
    return outcome(answer)


def outcome(answer: bytes) -> str:
    """The last that a receiver said: the status of a C-STORE, else what became of the association."""
    kinds, statuses, at = [], [], 0
    while at + 6 <= len(answer):
        kind, _, length = struct.unpack_from(">BBL", answer, at)
        content = answer[at + 6 : at + 6 + length]
        found = content.find(struct.pack("<HHL", 0x0000, 0x0900, 2))
        if kind == 4 and content.find(struct.pack("<HHLH", 0x0000, 0x0100, 2, 0x8001)) >= 0 and found >= 0:
            statuses.append(struct.unpack_from("<H", content, found + 8)[0])
        kinds.append(kind)
        at += 6 + length
    if statuses:
        return f"C-STORE 0x{statuses[-1]:04X}"
    return {3: "rejected", 7: "aborted", 6: "released"}.get(kinds[-1] if kinds else 0, "closed without an answer")


def echoes(port: int) -> bool:
    try:
        return exchange(port, associate_request() + p_data(ECHO, 3, echo_command()) + pdu(5, bytes(4))) == "released"
    except OSError:
        return False


def attack(port: int, work: Callable[[int], bytes], numbers: range) -> Counter[str]:
    """Send one conversation for each number, several at the same time."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(pool.map(lambda number: exchange(port, work(number)), numbers))


def mutated_files(folder: Path, number: int, seed: int) -> Iterator[tuple[Path, UID, bytes]]:
    """Write `number` mutated slices over one slice of a series each; its path, transfer syntax and data set."""
    volume = np.random.default_rng(seed).integers(0, 999, (5, 32, 32), dtype=np.uint16)
    for syntax in SYNTAXES:
        write(classic(volume), folder / syntax, syntax)
    for at in range(number):
        rng = random.Random(f"{seed} file {at}")
        plain = at % COMPRESSED_EVERY != 0
        syntax = rng.choice(SYNTAXES[:4] if plain else SYNTAXES[4:])
        path = rng.choice(sorted((folder / syntax).glob("*.dcm")))
        original = path.read_bytes()
        with path.open("rb") as file:
            start = content_start(file)
        data = mutate(original[start:], rng)
        whole = rng.random() < 0.2  # the file meta information, too
        path.write_bytes(mutate(original, rng) if whole else original[:start] + data)
        yield path, TRANSFER_SYNTAXES[syntax], data
        path.write_bytes(original)


def read(folder: Path) -> str:
    """Read a folder as the pipeline does before and after it analyses; say what came of it."""
    try:
        studies, _ = read_studies(sorted(folder.glob("*.dcm")))
        for study in studies:
            chosen = select_series(study)
            if chosen.analysable:
                read_source(read_acquisition(chosen))
                return "read"
    except CmbError:
        return "refused: the series cannot be used"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"UNEXPECTED {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    return "refused: no SWI series is left"


def detect(work: Path, seed: int) -> str:
    """Run ``cmbnode detect`` on the bundled study, thinned to a slab, with one mutated slice."""
    rng = random.Random(f"{seed} detect {work.name}")
    work.mkdir()
    for path in sorted(STUDY.glob("*.dcm"))[::3]:
        shutil.copy(path, work)
    victim = rng.choice(sorted(work.glob("*.dcm")))
    victim.write_bytes(mutate(victim.read_bytes(), rng))
    command = [sys.executable, "-m", "node.cli", "detect", str(work), "--out", f"{work}-out", "--profile", "frst"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        return f"UNEXPECTED exit status {done.returncode}"
    return "analysed" if done.returncode == 0 else "refused: exit status 2, one line"


@dataclass(frozen=True)
class Campaign:
    """What came of everything."""

    outcomes: dict[str, Counter[str]]
    errors: list[dict[str, str]]
    before: Usage
    after: Usage

    @property
    def unexpected(self) -> int:
        """Exceptions that nobody expected, hangs, and objects that the node said it had no room for."""
        bad = ("UNEXPECTED", "no answer", "C-STORE 0xA700", "C-STORE 0x0110")
        counted = sum(n for counts in self.outcomes.values() for name, n in counts.items() if name.startswith(bad))
        return counted + len(self.errors)

    def table(self) -> str:
        """Return the outcomes as Markdown."""
        lines = ["| input | number | outcome |", "|---|---:|---|"]
        for name, counts in self.outcomes.items():
            said = ", ".join(f"{what} {number}" for what, number in counts.most_common())
            lines.append(f"| {name} | {counts.total()} | {said} |")
        lines.append(f"| **unexpected exceptions** | **{self.unexpected}** | |")
        for what, unit in (("rss_mb", "MB resident"), ("descriptors", "file descriptors"), ("threads", "threads")):
            before, after = getattr(self.before, what), getattr(self.after, what)
            lines.append(f"| receiver, {unit} | | {before:.0f} before, {after:.0f} after |")
        return "\n".join(lines)


def run(associations: int, files: int, commands: int, seed: int, folder: Path) -> Campaign:
    """Run the whole campaign."""
    images = classic(np.random.default_rng(seed).integers(0, 999, (8, 32, 32), dtype=np.uint16))
    outcomes: dict[str, Counter[str]] = {}
    with running_receiver(folder) as receiver:

        def conversation_of(level: str) -> Callable[[int], bytes]:
            def make(number: int) -> bytes:
                rng = random.Random(f"{seed} {level} {number}")
                return conversation(level, rng.choice(images), rng)

            return make

        each = associations // len(LEVELS)
        for level in LEVELS:  # a tenth first, so that what a process keeps for ever is there before it is measured
            attack(receiver.port, conversation_of(level), range(-(each // 10), 0))
        before = receiver.usage()
        for level in LEVELS:
            outcomes[f"association, mutated {level}"] = attack(receiver.port, conversation_of(level), range(each))
        sent, reads = [], Counter[str]()
        for path, syntax, data in mutated_files(folder / "files", files, seed):
            reads[read(path.parent)] += 1
            sent.append((syntax, data))

        def store(number: int) -> bytes:
            syntax, data = sent[number]
            command = store_command(images[number % len(images)])
            pdus = [associate_request(syntax=syntax), p_data(MR, 3, command), p_data(MR, 2, data), pdu(5, bytes(4))]
            return b"".join(pdus)

        outcomes["file, by C-STORE"] = attack(receiver.port, store, range(len(sent)))
        outcomes["file, read by the pipeline"] = reads
        if not echoes(receiver.port):
            raise RuntimeError("the receiver does not answer any more")
        time.sleep(1)  # threads of the last associations end
        after, errors = receiver.usage(), receiver.errors()
    if commands:
        outcomes["file, `cmbnode detect`"] = Counter(detect(folder / f"detect-{n}", seed) for n in range(commands))
    return Campaign(outcomes, errors, before, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--associations", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--commands", type=int, default=6, help="runs of cmbnode detect")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = run(options.associations, options.files, options.commands, options.seed, Path(folder))
    print(done.table())
    print(f"\nseed {options.seed}, {time.perf_counter() - started:.0f} s")
    for error in done.errors[:20]:
        print(error)
    if done.unexpected:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

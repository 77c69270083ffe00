"""Write docs/pydicom-files.md: ``python -m docs.make_pydicom_files``.

Every file that ships with pydicom as test data is sent to a real receiver and given to `cmbnode detect`. The page lists
the outcomes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pydicom.data

from node.cli import main
from node.deliver.scu import Peer, Unreachable, read_outgoing, send
from pipeline.errors import InputError
from pipeline.read.decoding import Decoding
from tests.node.receiving import running_node

HEAD = """# Unusual files

Every file that ships with pydicom {version} as test data, sent to the node by C-STORE and given to `cmbnode detect`
alone in a folder. Many are broken on purpose; none belongs to a susceptibility-weighted series.
`python -m docs.make_pydicom_files` writes this page, and the tests check it.

- *Stored*: the instance is on disk and in the ledger, this file or the same image in another encoding. Routing then
  ignores it and says why.
- *Quarantined*: kept apart from the studies and shown to the administrator.
- *No C-STORE*: the file has no File Meta Information, so no DICOM sender can send it.
- *Not sent*: the file is too damaged for the sender.
- *Its first image*: what the node's decoder makes of it. By itself the node decodes only SWI, phase and magnitude.

| file | sent to the node | given to `cmbnode detect` | its first image |
|---|---|---|---|
"""


class Outcome(NamedTuple):
    """The outcome for one file."""

    name: str
    sent: str
    status: int
    detect: str
    pixels: str


def shipped_files() -> list[Path]:
    """Every test file of pydicom."""
    root = Path(pydicom.data.__file__).parent
    folders = (root / "test_files", root / "charset_files")
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.suffix not in (".py", ".pyc"))


def outcomes() -> list[Outcome]:
    """Send every file, then give each to `cmbnode detect`."""
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "node") as node, Decoding() as decoding:
        peer = Peer("CMBNODE", "127.0.0.1", node.port)
        return [
            Outcome(_name(path), _send(path, peer), *_detect(path, Path(folder) / f"{number}"), _pixels(path, decoding))
            for number, path in enumerate(shipped_files())
        ]


def _name(path: Path) -> str:
    return path.relative_to(Path(pydicom.data.__file__).parent).as_posix()


def _send(path: Path, peer: Peer) -> str:
    outgoing = read_outgoing(path)
    if outgoing is None:
        return "no C-STORE"
    try:
        (answer,) = send([outgoing], peer, "PYDICOM", timeout_s=20)
    except Unreachable:
        return "rejected: SOP class or transfer syntax not accepted"
    if answer.accepted:
        return "stored" if answer.status == 0 else "quarantined (0xB000): known UID, different content"
    return answer.answer if answer.status is not None else "not sent"


def _detect(path: Path, folder: Path) -> tuple[int, str]:
    (folder / "in").mkdir(parents=True)
    shutil.copy(path, folder / "in")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(["detect", str(folder / "in"), "--out", str(folder / "out")])
    lines = [line for line in said.getvalue().splitlines() if line.startswith("cmbnode: ")]  # and no log lines
    shutil.rmtree(folder)
    said_of_it = " / ".join(lines).replace(f"{folder / 'in'}/", "").replace(f"{folder / 'in'}: ", "")
    return status, said_of_it.removeprefix("cmbnode: ").removeprefix(f"{path.name}: ").split("; `cmbnode route`")[0]


def _pixels(path: Path, decoding: Decoding) -> str:
    """What the decoder makes of its first image; by itself the node decodes SWI, phase and magnitude alone."""
    try:
        ((_, ((image, _),)),) = decoding.decode({path: [0]})
    except InputError as error:
        return error.what
    return f"{image.shape[1]}×{image.shape[0]}"


def reference(found: list[Outcome]) -> str:
    """The page."""
    rows = (
        f"| `{one.name}` | {' | '.join(text.replace('|', '') for text in (one.sent, one.detect, one.pixels))} |\n"
        for one in found
    )
    return HEAD.format(version=pydicom.__version__) + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_name("pydicom-files.md").write_text(reference(outcomes()), encoding="utf-8")

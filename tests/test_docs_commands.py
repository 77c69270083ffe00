"""Every command on the pages is run here, or is listed with what runs it, or with the reason why nothing does.

A command of the node or of the training is at least read as its program reads it: a wrong option fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import text
from typer.main import get_command

from node.archive import Archive
from node.cli import app as node_app
from node.cli import main as cmbnode
from node.ledger import Ledger
from node.receive.receiver import Receiver
from node.settings import load_settings
from tests.node.seeded import Seeded, seed
from training.cli import app as training_app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"cmbnode": node_app, "cmbtrain": training_app}
pytestmark = pytest.mark.slow

RUN_HERE = (
    # In this order: each finds what those before it left. `17` is the job that fits, see `_job`.
    "cmbnode init config.toml",
    "cmbnode doctor",
    "cmbnode doctor --json",
    "cmbnode jobs",
    "cmbnode echo pacs",
    "cmbnode show 17",
    "cmbnode retry 17",
    "cmbnode reroute STUDY_UID",
    'cmbnode users add NAME --role reader --display-name "Dr. A. Reader"',
    "cmbnode users list",
    "cmbnode users set-role NAME administrator",
    "cmbnode users reset-password NAME",
    "cmbnode users token NAME --days 365",
    "cmbnode users add NAME --role administrator",
    "cmbnode users disable NAME",
    'cmbnode correct 17 --observer Reader^Ada --organisation "General Hospital"',
    'cmbnode audit --search "P-2041"',
    "cmbnode audit --user NAME --since '2026-11-01 08:00' --json",
    "cmbnode qa show",
    "cmbnode backup /backup/cmb-node.tar",
    "cmbnode restore /backup/cmb-node.tar --config /etc/cmb-node/config.toml",
    "cmbnode erase --patient ID",
)

RUN_ELSEWHERE = {
    r"openssl req|openssl x509|echo \"subjectAltName": (
        "tests/test_docs.py::test_the_certificates_on_the_page_are_taken"
    ),
    r"printf %s": "tests/integration/test_work_items.py::",
    r"curl|openssl rand|for file in|printf": (
        "tests/integration/test_dicomweb.py::test_the_commands_of_the_page_send_and_fetch"
    ),
    r"cmbnode echo pacs --config node.toml": "tests/node/commands/test_cli_destinations.py::",
    r"echoscu .*\+tls": "tests/integration/test_dicom_tls.py::",
    r"echoscu -aet MYPACS": "tests/test_docs_commands.py::test_echoscu_of_the_page_is_answered_with_the_pages_settings",
    r"cmbnode correct 17 --reject": "tests/integration/test_corrections.py::",
    r"cmbnode correct 17 --definite": (
        "tests/node/analyse/test_correction.py::test_a_result_is_corrected_from_the_command_line"
    ),
    r"cmbnode qa run": "tests/integration/test_qa.py::",
    r"cmbnode up": "tests/integration/test_recovery.py::",
    r"cmbnode demo": "tests/node/demo/test_demo.py::",
    r"cmbnode doctor --config": "tests/node/doctor/test_doctor.py::",
    r"cmbnode pull": "tests/integration/test_pull.py::",
    r"cmbnode detect FOLDER --prior": "tests/node/commands/test_cli_detect.py::",
    r"cmbnode route FOLDER": "tests/node/route/test_routing_without_swi.py::",
    r"cmbnode detect": "tests/node/commands/test_cli_detect.py::test_detect_writes_findings_and_dicom_results",
    r"python3 -m pip wheel|python3 -m venv /opt": "tests/test_packaging.py::test_the_wheel_works_from_anywhere",
    r"cmbtrain (check|evaluate|calibrate) SCANS": "tests/training/evaluation/test_ten_scans.py::",
    r"cmbtrain (fit|export|cache|check) ": "tests/training/fit/test_fit.py::test_the_commands_train_and_export",
    r"python -m training fit": "tests/training/fit/test_fit.py::test_the_commands_train_and_export",
    r"cmbtrain fit-forest": "tests/training/fit/test_forest.py::",
    r"cmbtrain simulate": "tests/training/simulation/test_cohort.py::",
    r"cmbtrain insert": "tests/training/simulation/test_insertion.py::",
    r"cmbtrain evaluate": "tests/training/evaluation/test_evaluate.py::",
    r"cmbtrain crossval": "tests/training/evaluation/test_crossval.py::",
    r"cmbtrain calibrate": "tests/training/evaluation/test_site_calibration.py::",
    r"docker compose (-f|up)": "tests/test_compose.py::",
}
"""A pattern of commands, and what runs the same, perhaps with smaller data; a name that ends in ``::`` is a file."""

NOT_RUN = {
    r"make (demo|test)|git (clone|pull)|cd /opt": "they install from the network; the tests run inside what they made",
    r"pip install dist": "changes this environment; tests/test_packaging.py installs the wheel in one of its own",
    r"docker (build|run|exec)|docker compose (exec|build)": "needs Docker; `make image-test` builds and runs the image",
    r"sudo make release|gpg|podman load": "makes or checks a release; tests/test_release.py runs the script",
    r"kubectl": "needs a cluster; tests/test_deploy.py checks the manifests",
    r"python3 -m venv \.venv|export PATH": "installs from the network; tests/test_packaging.py installs the wheel",
    r"sudo": "changes the machine as root; tests/test_deploy.py has systemd check the units",
    r"cp config/example.toml|for name in|echo ORTHANC|PIP_EXTRA": "prepares the host for Docker Compose",
    r"export CMBNODE_CONFIG": "changes the reader's shell",
    r"CMBNODE_DESTINATIONS__EHR__TOKEN": "an example of a variable; tests/node/settings has it",
    r"python -m benchmarks": "a benchmark of minutes to hours; its figures are on that page",
}


@dataclass(frozen=True)
class PageCommand:
    """A command line of a page, without its comment."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        """What a shell would pass on, from the program's name."""
        words = shlex.split(self.line)
        return [Path(words[0]).name, *words[1:]]


def _commands() -> Iterator[PageCommand]:
    """Every line of a block without a language, or of the shell's: a block of anything else names what it is."""
    for page in PAGES:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in re.sub(r" *\\\n *", " ", block).splitlines() if language in ("", "sh") else ():
                command = re.sub(r"(^|\s+)# .*", "", line).strip()
                if command:
                    yield PageCommand(page.name, re.sub(r"^(\.venv|/opt/cmb)/bin/", "", command))


def _mentions() -> Iterator[PageCommand]:
    """Commands inside a sentence or a table."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for line in re.findall(r"`(?:\.venv/bin/)?((?:cmbnode|cmbtrain) [^`]+)`", text):
            yield PageCommand(page.name, " ".join(line.split()))


COMMANDS = sorted(set(_commands()), key=lambda one: (one.page, one.line))
MENTIONS = sorted(set(_mentions()), key=lambda one: (one.page, one.line))


def _found(patterns: dict[str, str], line: str) -> str:
    return next((value for pattern, value in patterns.items() if re.match(pattern, line)), "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: f"{one.page}: {one.line[:60]}")
def test_a_command_of_a_page_is_run_or_says_why_not(command: PageCommand) -> None:
    run = command.line in RUN_HERE
    assert run or _found(RUN_ELSEWHERE, command.line) or _found(NOT_RUN, command.line), "run it here, or say why not"


@pytest.mark.parametrize("test", sorted(set(RUN_ELSEWHERE.values())))
def test_what_is_said_to_run_a_command_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name or 'test_'}" in (ROOT / file).read_text()


@pytest.mark.parametrize(
    "command",
    [one for one in COMMANDS if one.line.startswith(("cmbnode ", "cmbtrain "))],
    ids=lambda one: f"{one.page}: {one.line[:60]}",
)
def test_a_program_understands_its_command(command: PageCommand) -> None:
    """Arguments and options are those that the program has."""
    name, *words = command.words
    group: Any = get_command(PROGRAMS[name])
    chosen = group.commands[words[0]]
    rest = words[1:]
    if hasattr(chosen, "commands"):
        chosen, rest = chosen.commands[words[1]], words[2:]
    chosen.make_context(words[0], rest)


@pytest.mark.parametrize("mention", MENTIONS, ids=lambda one: f"{one.page}: {one.line[:60]}")
def test_a_command_in_a_sentence_exists_with_its_options(mention: PageCommand) -> None:
    """A sentence may leave out what a command requires, but names nothing that the program does not have."""
    name, *words = mention.words
    command: Any = get_command(PROGRAMS[name])
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


def test_no_entry_of_the_lists_is_left_over() -> None:
    lines = [one.line for one in COMMANDS]
    prose = " ".join(page.read_text() for page in PAGES)
    assert [line for line in RUN_HERE if line not in lines and line not in prose] == []
    unused = [p for p in (*RUN_ELSEWHERE, *NOT_RUN) if not any(re.match(p, line) for line in lines)]
    assert unused == []


@pytest.fixture(scope="module")
def node_with_studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    made = seed(tmp_path_factory.mktemp("node"))
    with made.ledger.engine.connect() as connection:
        for path in connection.scalars(text("SELECT path FROM instances UNION SELECT path FROM results")):
            file = made.data_dir / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes(b"simulated")
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def pacs_port() -> Iterator[int]:
    entity = AE(ae_title="MYPACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield server.server_address[1]
    server.shutdown()


def _job(line: str, jobs: dict[str, int]) -> int:
    if "retry" in line:
        return jobs["failed"]
    return jobs["delivered" if "show" in line else "clean"]


@pytest.mark.parametrize("line", RUN_HERE, ids=lambda line: line[:60])
def test_a_command_does_what_the_page_says(
    line: str,
    node_with_studies: Seeded,
    pacs_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = node_with_studies
    config = made.data_dir / "config.toml"
    config.write_text(
        f'data_dir = "{made.data_dir}"\n[receiver]\nport = 0\n[worklist]\nport = 0\n[archive]\nfree_disk_mb = 1\n'
        f'[destinations.pacs]\nae_title = "MYPACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
    )
    for name in [name for name in os.environ if name.startswith("CMBNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CMBNODE_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("correct horse battery staple\n")
    places = {
        "17": str(_job(line, made.jobs)),
        "NAME": "ada",
        "STUDY_UID": made.studies["ignored"],
        "ID": "P-1003",
        "/backup/cmb-node.tar": str(made.data_dir / "backup.tar"),
        "/etc/cmb-node/config.toml": str(tmp_path / "other.toml"),
    }
    (tmp_path / "other.toml").write_text(f'data_dir = "{tmp_path / "other"}"\n')
    _, *words = [places.get(word, word) for word in shlex.split(line)]
    if words[:2] == ["users", "add"] and "administrator" in words:
        words[2] = "grace"
    if words[0] == "erase":
        words.append("--yes")
    with (tmp_path / "password").open() as typed:
        monkeypatch.setattr("sys.stdin", typed)
        status = cmbnode(words)
    said = capsys.readouterr()
    assert status == 0, said.err


def test_echoscu_of_the_page_is_answered_with_the_pages_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    (example,) = re.findall(r"```toml\n(# /etc/cmb-node/config\.toml.*?)```", page, re.DOTALL)
    (line,) = (one.line for one in COMMANDS if one.line.startswith("echoscu -aet MYPACS"))
    (tmp_path / "config.toml").write_text(example)
    # This test's sender is on this machine, not in the network of the example.
    monkeypatch.setenv("CMBNODE_RECEIVER__PEERS", '["127.0.0.1/32"]')
    monkeypatch.setenv("CMBNODE_RECEIVER__PORT", "0")
    monkeypatch.setenv("CMBNODE_RECEIVER__HOST", "127.0.0.1")
    settings = load_settings(tmp_path / "config.toml", data_dir=tmp_path / "data")
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    echoscu = shutil.which("echoscu", path="/usr/bin")  # another package of Python has one of the same name
    assert echoscu, "the tests need DCMTK"
    with Receiver(settings, ledger, Archive(settings.data_dir)) as receiver:
        words = [{"node-host": "127.0.0.1", "11112": str(receiver.port)}.get(w, w) for w in shlex.split(line)]
        done = subprocess.run([echoscu, "-v", *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Success" in done.stdout + done.stderr
        without = [word for word in words[1:] if word not in ("-aet", "MYPACS")]
        assert subprocess.run([echoscu, *without], capture_output=True).returncode != 0
    ledger.close()

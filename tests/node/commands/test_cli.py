"""`cmbnode` does what its page says: exit statuses, one clear line, one JSON document."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import pytest

from node.cli import main
from node.commands.options import actor
from node.demo.run import STUDY
from node.text import printable
from tests.dicom_factory import Patient, classic, write
from tests.node.seeded import Seeded, seed
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_nobodys_settings")]

COMMANDS = [  # the contract's
    *("up", "receiver", "worker", "worklist", "sweep"),
    *("detect", "route", "send", "echo", "jobs", "show", "retry", "reroute", "profiles", "demo"),
    *("users", "audit", "correct", "erase", "doctor", "init", "backup", "restore", "qa", "pull"),
]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    made = seed(tmp_path_factory.mktemp("cli"))
    yield made
    made.ledger.close()


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on stderr of a command that ends with status 2."""
    status, out, err = run(capsys, *words)
    lines = err.splitlines()
    assert (status, out) == (2, ""), err
    assert [line for line in lines if line.startswith("cmbnode: ")] == [lines[-1]]
    assert "Traceback" not in err
    return lines[-1]


def test_the_program_is_installed_and_knows_its_version() -> None:
    program = Path(sys.executable).with_name("cmbnode")
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"cmbnode {version('cmb-node')}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "not a medical device" in " ".join(out.split())
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert sorted(listed) == sorted(COMMANDS)


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[:2] == run(capsys, "--help")[:2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"cmbnode {command}" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bogus"], "bogus"),
        (["send"], "DICOM_DIR"),
        (["detect", "somewhere"], "--out"),
        (["show", "seven"], "JOB"),
        (["jobs", "--colour"], "--colour"),
        (["worker", "--queue", "other"], "other"),
        (["echo", "nonsense"], "AET@HOST:PORT"),
        (["echo", "A@h:99999"], "AET@HOST:PORT"),
        (["jobs", "--config", "missing.toml"], "missing.toml"),
        (["jobs", "--data", "/nonexistent/node"], "/nonexistent/node"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in refused(capsys, *words)


def test_a_wrong_setting_is_named_with_its_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("[receiver]\nport = 99999\n")
    line = refused(capsys, "up", "--config", config)
    assert str(config) in line
    assert "receiver.port" in line


def test_the_configuration_can_be_named_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CMBNODE_CONFIG", str(tmp_path / "elsewhere.toml"))
    assert "elsewhere.toml" in refused(capsys, "jobs")


@pytest.mark.parametrize(
    "words", ["--help", "jobs --data DATA", "jobs --data DATA --json", "show 1 --data DATA", "echo A@127.0.0.1:1"]
)
def test_light_commands_load_neither_torch_nor_simpleitk(seeded: Seeded, words: str) -> None:
    arguments = words.replace("DATA", str(seeded.data_dir)).split()
    assert _loaded(arguments, "torch", "SimpleITK", "fastapi") == "[]"


@pytest.mark.parametrize("words", ["--help", "profiles", "detect STUDY --out OUT --profile frst"])
def test_a_command_without_a_node_does_not_load_the_ledger(words: str, tmp_path: Path) -> None:
    """It would cost every analysis a part of a second."""
    arguments = words.replace("STUDY", str(STUDY)).replace("OUT", str(tmp_path / "out")).split()
    assert _loaded(arguments, "sqlalchemy", "celery", "fastapi") == "[]"


def _loaded(arguments: list[str], *libraries: str) -> str:
    """Which of these a command has loaded when it ends."""
    code = (
        "import sys; from node.cli import main; main(sys.argv[1:]);"
        f"print('loaded:', [name for name in {libraries} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()[-1].removeprefix("loaded: ")


def test_an_unexpected_error_is_one_line_unless_asked_for_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("pipeline.profile.available_profiles", broken)
    status, out, err = run(capsys, "profiles")
    assert (status, out) == (1, "")
    assert err == "cmbnode: unexpected RuntimeError: first line second line; `cmbnode --debug …` shows the traceback\n"
    status, _, err = run(capsys, "--debug", "profiles")
    assert status == 1
    assert "Traceback" in err


# --- jobs, show, retry -----------------------------------------------------------------------------------------------


def test_jobs_lists_the_newest_first(capsys: pytest.CaptureFixture[str], seeded: Seeded) -> None:
    status, out, _ = run(capsys, "jobs", "--data", seeded.data_dir)
    assert status == 0
    assert [int(line.split()[0]) for line in out.splitlines()[1:]] == sorted(seeded.jobs.values(), reverse=True)
    assert "slice 31 of 72 is missing between 58.0 and 62.0 mm" in out


def test_jobs_as_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str], seeded: Seeded) -> None:
    status, out, err = run(capsys, "jobs", "--data", seeded.data_dir, "--json", "--limit", 3)
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert len(document["jobs"]) == 3
    assert document["jobs"][0]["state"] == "queued"


def test_show_tells_the_whole_story_of_a_job(capsys: pytest.CaptureFixture[str], seeded: Seeded) -> None:
    job = seeded.jobs["delivering"]
    status, out, _ = run(capsys, "show", job, "--data", seeded.data_dir)
    assert status == 0
    for expected in (
        "12 cerebral microbleeds: 6 definite, 6 possible",
        "PACS@10.0.0.7:104 does not answer",
        "analysed",
        "worker-1",
    ):
        assert expected in out
    document = json.loads(run(capsys, "show", job, "--data", seeded.data_dir, "--json")[1])
    assert document["findings"]["counts"]["total"] == 12
    assert len(document["deliveries"]) == 3


def test_a_hostile_name_cannot_write_on_the_terminal() -> None:
    assert printable("Doe\x1b[2J\r\nJane\u202e") == "Doe�[2J  Jane�"


def test_retry_queues_a_failed_job_and_refuses_any_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = seed(tmp_path)
    failed, done = made.jobs["failed"], made.jobs["delivered"]
    status, out, _ = run(capsys, "retry", failed, "--data", tmp_path)
    assert (status, out) == (0, f"job {failed} is queued again\n")
    assert made.ledger.job(failed).state == "queued"
    assert made.ledger.history("job", failed)[-1].actor == actor()
    assert "only a failed job" in refused(capsys, "retry", done, "--data", tmp_path)
    assert "no such job" in refused(capsys, "retry", 999, "--data", tmp_path)
    assert "no such job" in refused(capsys, "show", 999, "--data", tmp_path)
    made.ledger.close()


def test_commands_that_show_or_change_patients_data_are_in_the_audit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("USER", "grace")
    monkeypatch.setenv("LOGNAME", "grace")
    made = seed(tmp_path)
    uid, job = made.studies["delivered"], made.jobs["delivered"]
    failed = made.studies["failed"], made.jobs["failed"]
    commands: dict[str, tuple[tuple[object, ...], str, str]] = {
        "jobs": (("jobs",), "", "looked at the list"),
        "show": (("show", job), uid, "looked at a study"),
        "retry": (("retry", failed[1]), failed[0], "retried a job"),
        "reroute": (("reroute", uid), uid, "routed a study again"),
        "audit": (("audit", "--study", uid), uid, "looked at the audit"),
        "pull": (("pull", "list"), "", "looked at the list"),
    }
    for words, study, action in commands.values():
        for json_option in ((), ("--json",)) if words[0] in ("jobs", "show", "audit") else ((),):
            before = made.ledger.audit(limit=1000)
            assert run(capsys, *words, *json_option, "--data", tmp_path)[0] == 0, words
            (entry,) = made.ledger.audit(limit=1000)[: len(made.ledger.audit(limit=1000)) - len(before)]
            assert (entry.user_name, entry.action, entry.study_instance_uid) == (actor(), action, study)
    assert actor() == f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    made.ledger.close()
    recorded_elsewhere = {"correct", "erase", "backup", "restore"}
    no_patients_data = {"up", "receiver", "worker", "worklist", "sweep", "profiles", "echo", "users", "demo"}
    no_patients_data |= {"doctor", "init", "qa"}
    own_files = {"detect", "route", "send"}
    assert {*commands, *recorded_elsewhere, *no_patients_data, *own_files} == set(COMMANDS)


def test_asking_a_folder_without_a_node_makes_nothing_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no node has run here yet" in refused(capsys, "jobs", "--data", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


# --- route and profiles ----------------------------------------------------------------------------------------------


def test_route_says_what_each_series_is_and_what_would_happen(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    status, out, _ = run(capsys, "route", study, "--json")
    document = json.loads(out)
    assert status == 0
    actions = {series["role"]: series["action"] for series in document["series"]}
    assert actions == {"swi": "analyse", "phase": "use", "magnitude": "use", "mip": "ignore"}
    by_role = {series["role"]: series["series_instance_uid"] for series in document["series"]}
    assert document["pick"] == {role: by_role[role] for role in ("swi", "phase", "magnitude")}
    assert all({"rule", "needs_confirmation", "why"} <= set(series) for series in document["series"])
    table = run(capsys, "route", study)[1]
    assert "mIP_Images(SW)" in table
    assert "analysed with profile" in table


def test_route_with_several_studies_picks_in_each(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    write(classic(np.ones((3, 8, 8), np.uint16), patient=Patient(seed="second")), study / "second")
    document = json.loads(run(capsys, "route", study, "--json")[1])
    assert document["pick"] == {"swi": None, "phase": None, "magnitude": None}
    assert [bool(entry["pick"]["swi"]) for entry in document["studies"]] == [True, True]


def test_route_needs_dicom_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert "no DICOM images" in refused(capsys, "route", tmp_path, "--json")


def test_profiles_are_listed_with_their_digests(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "profiles", "--json")
    listed = {profile["name"]: profile for profile in json.loads(out)}
    assert status == 0
    assert "frst" in listed
    assert len(listed["frst"]["digest"]) == 64
    assert "frst" in run(capsys, "profiles")[1]


# --- serving ---------------------------------------------------------------------------------------------------------


def test_the_worklist_serves_until_it_is_asked_to_stop(seeded: Seeded) -> None:
    port = free_port()
    environment = {**os.environ, "CMBNODE_WORKLIST__PORT": str(port), "CMBNODE_WORKLIST__SIGN_IN": "false"}
    command = [sys.executable, "-m", "node.cli", "worklist", "--data", str(seeded.data_dir)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/api/jobs", trust_env=False, timeout=5)
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert len(answer.json()["jobs"]) == len(seeded.jobs)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    assert not any(uid in log for uid in seeded.studies.values())


def test_a_port_in_use_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("CMBNODE_WORKLIST__PORT", str(port))
        assert f"cannot listen on 127.0.0.1:{port}" in refused(capsys, "worklist", "--data", tmp_path)

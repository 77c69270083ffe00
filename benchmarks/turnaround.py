"""How long from the last image to the report in the PACS? A whole node and a real Orthanc, one study at a time.

    python -m benchmarks.turnaround [--study FOLDER] [--runs 3]

The study goes to the node by C-STORE (`cmbnode send`); the node's settings are the defaults, the quiet period of 10 s
and the profile `default` included. Times are the ledger's own; the last one is when Orthanc had accepted all results.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from node.ledger import Job, JobState, Ledger
from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

from .studies import simulated_study

DEFAULTS = {
    "SETTLING__QUIET_S": "10",
    "QUEUE__SWEEP_S": "2",
    "QUEUE__LEASE_S": "30",
    "ROUTING_FILE": str(files("node.route").joinpath("routing.toml")),
}


def renamed(source: Path, folder: Path) -> Path:
    """Copy a study under UIDs of its own, so that the node has not seen it."""
    known: dict[str, str] = {}
    folder.mkdir()
    for number, path in enumerate(sorted(source.rglob("*.dcm"))):
        dataset = dcmread(path)
        if dataset.Modality != "MR":  # the truth beside the images
            continue
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            old = str(dataset[name].value)
            setattr(dataset, name, known.setdefault(old, generate_uid()))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{number:04d}.dcm")
    return folder


def turn_round(node: RunningNode, study: Path) -> tuple[float, Job, dict[str, float]]:
    """Send one study; return when the last image was sent (seconds since the epoch), the job and its stages."""
    done = node.command("send", str(study), f"{AE_TITLE}@127.0.0.1:{node.dicom_port}")
    assert done.returncode == 0, done.stderr
    sent = time.time()
    ledger = Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")
    uid = str(dcmread(next(study.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
    try:
        (job,) = wait_until(
            lambda: [job for job in ledger.jobs_of_study(uid) if job.state in (JobState.DELIVERED, JobState.FAILED)],
            300,
        )
        findings = ledger.findings(job.id)
    finally:
        ledger.close()
    assert findings, job.why
    assert job.state == JobState.DELIVERED, job.why
    return sent, job, findings["timing_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, help="folder of one study; by default one is simulated")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = given.study or simulated_study(folder / "simulated")
        copies = [renamed(study, folder / f"copy {n}") for n in range(given.runs)]
        images = len(list(copies[0].iterdir()))
        rows: dict[str, list[float]] = {}
        with (
            run_orthanc(folder / "pacs") as orthanc,
            run_node(folder / "node", {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}, **DEFAULTS) as node,
        ):
            for copy in copies:
                for step, seconds in steps(*turn_round(node, copy)).items():
                    rows.setdefault(step, []).append(seconds)
    print(f"\n{images} images, {given.runs} studies one after the other, simulated images\n")
    print("| step | median s | min | max |\n|---|---:|---:|---:|")
    for step, values in rows.items():
        print(f"| {step} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")


def steps(sent: float, job: Job, stages: dict[str, float]) -> dict[str, float]:
    """Split the time between the last image and the last accepted result."""
    created, started, analysed, finished = (
        at.timestamp() for at in (job.created_at, job.started_at, job.analysed_at, job.finished_at) if at
    )
    return {
        "quiet period, settling, routing": created - sent,
        "queue": started - created,
        **{f"analysis: {name}": seconds for name, seconds in stages.items()},
        "analysis: headers, results, ledger": analysed - started - sum(stages.values()),
        "delivery": finished - analysed,
        "last image sent to last result accepted": finished - sent,
    }


if __name__ == "__main__":
    main()

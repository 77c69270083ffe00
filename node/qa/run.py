"""How does a run of site QA go? The phantom takes the route of every study through the running node; then it is judged.

It goes in by C-STORE at the node's own receiver, waits in the queue, and is analysed by a worker with the profile that
the site's rules choose. Its results are read from the ledger and the outbox.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node.archive import Archive
from node.archive.qa_runs import QaRun, add_run, read_runs
from node.deliver.scu import OutgoingFile, Peer, Unreachable, read_outgoing, send
from node.ledger import Job, Ledger
from node.ledger.records import QA_PATIENT_ID
from node.run.erasing import erase_study
from node.settings import Settings
from node.settings.connections import TlsSettings
from node.web.follow import NoResult, follow_study
from pipeline.errors import InputError
from pipeline.profile import load_profile

from .drift import differences, found_of, last_good, object_faults, sensitivity_faults
from .phantom import Phantom, make_phantom

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call a receiver that listens on all


class RunFailed(Exception):  # noqa: N818 - it reads as what happened
    """The phantom did not come through; the text says where it stopped."""


class OwnTlsPort(TlsSettings):
    """The node's own TLS port: it shows and accepts the node's own certificate, which is not checked against itself."""

    @property
    def address(self) -> str:
        """What it is."""
        return "the node's own receiver"


def own_receiver(settings: Settings) -> tuple[Peer, str]:
    """Where the node's own receiver listens, and the AE title to call it from.

    Raises
    ------
    InputError
        If the settings do not tell the port.
    """
    receiver, tls = settings.receiver, settings.receiver.tls
    host = settings.qa.host or _ANY_ADDRESS.get(receiver.listen_host, receiver.listen_host)
    calling = settings.qa.calling_ae_title or next(iter(receiver.calling_ae_titles), settings.ae_title)
    port, certificates = receiver.port, None
    if tls is not None and tls.only:
        port = tls.port
        certificates = OwnTlsPort(verify=False, certificate=tls.certificate, certificate_key=tls.certificate_key)
    if port == 0:
        raise InputError("the node listens on any free port", where="receiver.port", do="set a port")
    return Peer(settings.ae_title, host, port, certificates), calling


def run_qa(
    settings: Settings,
    ledger: Ledger,
    archive: Archive,
    study: Path,
    say: Callable[[str], None],
    *,
    actor: str,
    accept: bool = False,
) -> QaRun:
    """Send a phantom through the running node, judge its results, and add the run to the trend.

    Parameters
    ----------
    study : Path
        Folder with the DICOM files of one simulated study, and its ``truth.json``.
    say : callable
        Hears each step as it begins.
    actor : str
        Who does it, for the audit: older phantoms are erased.
    accept : bool
        What differs from the last good run is wanted: compare later runs with this one.

    Raises
    ------
    InputError
        If there is no phantom in `study`, or the settings do not tell where to send it.
    """
    peer, calling = own_receiver(settings)
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        phantom = make_phantom(study, Path(folder), now.astimezone(settings.zone))
        run = QaRun(now, phantom.study_instance_uid, phantom.digest, len(phantom.truth.bleeds))
        try:
            _send(phantom, peer, calling, say)
            sent_at = datetime.now(UTC)
            job = follow_study(ledger, phantom.study_instance_uid, settings.qa.time_limit_s, say)
            run = _measure(run, job, phantom, ledger, archive, settings)
            run = replace(run, seconds={"sending": round((sent_at - now).total_seconds(), 2), **_times(job, sent_at)})
        except (RunFailed, NoResult) as error:
            run = replace(run, faults=(str(error),))
    before = last_good(read_runs(settings.data_dir), phantom.digest)
    if before is not None and run.seconds:  # it came through
        run = replace(run, differences=differences(run, before, settings.qa), accepted=accept)
    add_run(settings.data_dir, run)
    _erase_old(ledger, archive, now - timedelta(days=settings.qa.keep_days), actor)
    return run


def _send(phantom: Phantom, peer: Peer, calling: str, say: Callable[[str], None]) -> None:
    files = [outgoing for path in phantom.files if isinstance(outgoing := read_outgoing(path), OutgoingFile)]
    say(f"sending {len(files)} images to {peer}")
    try:
        refused = [answer for answer in send(files, peer, calling) if not answer.accepted]
    except Unreachable as error:
        raise RunFailed(
            f"{error}; the node must run, and receiver.peers and receiver.calling_ae_titles admit {calling}"
        ) from error
    if refused:
        raise RunFailed(f"the receiver refused {len(refused)} of {len(files)} images: {refused[0].answer}")


def _measure(run: QaRun, job: Job, phantom: Phantom, ledger: Ledger, archive: Archive, settings: Settings) -> QaRun:
    """Compare findings, report and segmentation with the truth and with each other."""
    findings = ledger.findings(job.id)
    if findings is None:
        raise RunFailed("the ledger has no findings")
    found, scored = found_of(findings, phantom.truth)
    objects = {result.kind: archive.path(result.path) for result in ledger.results(job.id)}
    return replace(
        run,
        software=findings["software"],
        profile=findings["profile"],
        profile_digest=load_profile(job.profile).digest,
        weights=findings["weights"],
        found=found,
        false=len(scored.false_ids),
        stages=findings["timing_s"],
        faults=(
            *sensitivity_faults(scored, settings.qa.least_sensitivity),
            *object_faults(findings, objects),
        ),
    )


def _times(job: Job, sent_at: datetime) -> dict[str, float]:
    """From the last image sent to the last result, step by step."""
    started, analysed, finished = job.started_at, job.analysed_at, job.finished_at
    assert started is not None and analysed is not None and finished is not None  # noqa: S101, PT018 - it is over
    steps = {
        "routing": job.created_at - sent_at,
        "queue": started - job.created_at,
        "analysis": analysed - started,
        "delivery": finished - analysed,
        "total": finished - sent_at,
    }
    return {name: round(step.total_seconds(), 2) for name, step in steps.items()}


def _erase_old(ledger: Ledger, archive: Archive, before: datetime, actor: str) -> None:
    """Erase the phantoms of earlier runs; one that something works on stays until the next run."""
    for uid in ledger.studies_of_patient(QA_PATIENT_ID):
        if ledger.study(uid).last_received_at < before:
            with suppress(InputError):
                erase_study(ledger, archive, uid, actor)

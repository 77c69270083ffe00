"""DICOM with TLS and the certificates of docs/connect-a-pacs.md: DCMTK's tools and Orthanc, in both directions."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from structlog.testing import capture_logs

from node.deliver import SendResult, Unreachable, open_destination
from node.ledger import Priority, PriorState
from node.processes.process import listens
from node.retrieve.source import StudyQuery, TransferLimits
from node.settings import DicomDestination
from tests.certificates import Authority
from tests.dicom_factory import write
from tests.node.jobs import capture
from tests.node.priors.site import AE_TITLE, running_site, study, uid_of
from tests.node.receiving import Node, eventually, running_node, slices
from tests.node.reports import job
from tests.orthanc import run_orthanc
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
DCMTK = Path("/usr/bin")
MUTUAL = ("+tls", "pacs.key", "pacs.pem", "+cf", "ca.pem")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the commands of the page ran, as a reader would run them, with this host's address."""
    folder = tmp_path_factory.mktemp("certificates")
    (commands,) = re.findall(
        r"```sh\n(# certificates: .*?)```", (ROOT / "docs/connect-a-pacs.md").read_text(), re.DOTALL
    )
    assert "10.1.2.3" in commands
    assert "10.1.2.4" in commands
    commands = commands.replace("10.1.2.3", "127.0.0.1").replace("10.1.2.4", "127.0.0.1")
    subprocess.run(["bash", "-e", "-c", commands], cwd=folder, check=True, capture_output=True)
    return folder


def own(files: Path) -> dict[str, Any]:
    """The node's certificate and authorities, as settings name them."""
    names = {"certificate": "cmbnode.pem", "certificate_key": "cmbnode.key", "ca_file": "ca.pem"}
    return {setting: files / name for setting, name in names.items()}


def dcmtk(files: Path, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DCMTK / program, *arguments],
        cwd=files,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def node(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node"), tls={"port": 0, **own(files)}) as node:
        yield node


@pytest.mark.parametrize(
    ("profile", "version"),
    [("--profile-bcp195-nd", "TLSv1.3"), ("--profile-bcp195", "TLSv1.3"), ("--profile-bcp195-ex", "TLSv1.2")],
)
def test_dcmtk_stores_by_each_bcp_195_profile(
    node: Node, files: Path, tmp_path: Path, profile: str, version: str
) -> None:
    paths = write(slices(2), tmp_path)
    with capture_logs() as log:
        done = dcmtk(files, "storescu", *MUTUAL, profile, "-aec", "CMBNODE", "127.0.0.1", str(node.tls_port), *paths)
        assert done.returncode == 0, done.stderr
    assert [line["tls"] for line in log if line["event"] == "association accepted"] == [version]
    assert node.instances() == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("+tla", "+cf", "ca.pem"), "it showed no certificate, and this node requires one"),
        (("+tls", "pacs.key", "pacs.pem", "-ic", "+pa"), "it offers neither TLS 1.2 nor TLS 1.3|no cipher suite"),
        (("+tls", "pacs.key", "pacs.pem", "+cf", "pacs.pem"), "it does not trust the authority of this node's"),
        ((), "it does not use TLS on this port"),
    ],
)
def test_dcmtk_is_refused_with_one_line(node: Node, files: Path, options: tuple[str, ...], why: str) -> None:
    with capture_logs() as log:
        done = dcmtk(files, "echoscu", *options, "-aec", "CMBNODE", "127.0.0.1", str(node.tls_port))
        assert done.returncode != 0
        assert eventually(lambda: any(line["log_level"] == "warning" for line in log))
    (line,) = [line for line in log if line["log_level"] == "warning"]
    assert re.search(why, line["why"])


@contextmanager
def storescp(files: Path, *options: str) -> Iterator[int]:
    port = free_port()
    command = [DCMTK / "storescp", *options, "--ignore", str(port)]
    process = subprocess.Popen(command, cwd=files, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(process.pid, port), 20)
        yield port
    finally:
        process.kill()
        process.wait()


def destination(port: int, **tls: Any) -> DicomDestination:
    return DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5, **tls)


def test_a_result_goes_to_dcmtk_with_tls(files: Path, tmp_path: Path) -> None:
    path, answers = tmp_path / "capture.dcm", list[SendResult]()
    capture(job()).save_as(path, enforce_file_format=True)
    stranger = Authority(tmp_path, "Another CA")
    with storescp(files, *MUTUAL) as port:
        open_destination(destination(port, tls=True, **own(files)), AE_TITLE).send([path], answers.append)
        assert [answer.answer for answer in answers] == ["stored"]
        for tls, why in (
            ({"ca_file": stranger.ca_file}, "its certificate is not from an authority in ca_file"),
            (stranger.issue("x").settings, "it does not trust the authority of this node's certificate"),
            ({"mutual": False, "certificate": None, "certificate_key": None}, "requires a certificate"),
            ({"tls": False, **dict.fromkeys(own(files))}, "does this port expect TLS"),
        ):
            with pytest.raises(Unreachable, match=why):
                open_destination(destination(port, **{"tls": True, **own(files), **tls}), AE_TITLE).check()
    with storescp(files) as port, pytest.raises(Unreachable, match="does it use TLS on this port"):
        open_destination(destination(port, tls=True, **own(files)), AE_TITLE).check()


def test_orthanc_and_the_node_use_tls_for_images_results_and_earlier_studies(files: Path, tmp_path: Path) -> None:
    tls_port, pacs_port = free_port(), free_port()
    tls = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(files / "pacs.pem"),
        "DicomTlsPrivateKey": str(files / "pacs.key"),
        "DicomTlsTrustedCertificates": str(files / "ca.pem"),
        "DicomModalities": {
            "cmbnode": {"AET": AE_TITLE, "Host": "127.0.0.1", "Port": tls_port, "UseDicomTls": True},
        },
    }
    earlier, present = study("earlier", "20240503"), study("present", "20260102")
    new = study("new", "20260103", "P2")
    path, answers = tmp_path / "capture.dcm", list[SendResult]()
    capture(job()).save_as(path, enforce_file_format=True)
    asked = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs_port, "tls": True, **own(files)}
    with (
        run_orthanc(tmp_path / "pacs", ports=(pacs_port, free_port()), **tls) as orthanc,
        running_site(
            tmp_path / "node", priors={"dicom": asked}, tls={"port": tls_port, "only": True, **own(files)}
        ) as site,
    ):
        for datasets in (earlier, present, new):
            orthanc.upload(*write(datasets, tmp_path / uid_of(datasets), names="{series}-{n}.dcm"))
        [found] = orthanc.http.post("/tools/lookup", content=uid_of(present)).json()
        orthanc.http.post("/modalities/cmbnode/store", json={"Resources": [found["ID"]]}).raise_for_status()
        assert site.images(uid_of(present)) == len(present)

        open_destination(destination(pacs_port, tls=True, **own(files)), AE_TITLE).send([path], answers.append)
        assert [answer.answer for answer in answers] == ["stored"]
        assert len(orthanc.instances(str(dcmread(path).StudyInstanceUID))) == 1

        site.settle(uid_of(present))
        site.ledger.ask_for_priors(uid_of(present), Priority.ROUTINE, 60)
        assert site.ask(site.dicom(**asked), uid_of(present)).state is PriorState.FETCHED
        assert site.images(uid_of(earlier)) == len(earlier)

        by_get, day = site.dicom(**asked, retrieve="c-get"), date(2026, 1, 3)
        (found,) = by_get.studies(StudyQuery(day, day))
        series = [one.series_instance_uid for one in by_get.series(found.study_instance_uid)]
        by_get.fetch(uid_of(new), series, TransferLimits(time.monotonic() + 60, lambda: "", 100))
        assert site.images(uid_of(new)) == len(new)

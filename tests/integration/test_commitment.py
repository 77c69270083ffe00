"""Orthanc and a whole node ask each other for storage commitment, by TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node.ledger import Ledger
from tests.certificates import Authority, Identity
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, run_node
from tests.waiting import wait_for

from .killable_node import make_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def orthanc_settings(authority: Authority, own: Identity, node_port: int) -> dict[str, Any]:
    modality = {"AET": AE_TITLE, "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": True}
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(own.certificate),
        "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(authority.ca_file),
        "DicomModalities": {"cmbnode": modality},
    }


def test_orthanc_and_the_node_commit_to_what_they_were_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = {name: str(file) for name, file in authority.issue("cmbnode", "127.0.0.1").settings.items()}
    tls["ca_file"] = str(authority.ca_file)
    node_port, pacs_port = free_port(), free_port()
    pacs = {"ae_title": Orthanc.ae_title, "host": "127.0.0.1", "port": pacs_port, "tls": True, **tls}
    uid, files = make_study(tmp_path, "study")
    settings = {
        "DESTINATIONS": json.dumps({"pacs": {**pacs, "commit_within_s": 60}}),
        "RECEIVER__TLS": json.dumps({"port": node_port, "only": True, **tls}),
    }
    more = orthanc_settings(authority, authority.issue("pacs", "127.0.0.1"), node_port)
    with (
        run_orthanc(tmp_path / "pacs", ports=(pacs_port, free_port()), **more) as orthanc,
        run_node(tmp_path / "node", {}, **settings) as node,
    ):
        orthanc.upload(*files)
        [found] = orthanc.http.post("/tools/lookup", content=uid).json()
        request = {"Resources": [found["ID"]], "StorageCommitment": True}
        sent = orthanc.http.post("/modalities/cmbnode/store", json=request).raise_for_status().json()
        answer = wait_for(lambda: _report(orthanc, sent["StorageCommitmentTransactionUID"]), 60)
        assert answer["Status"] == "Success"
        assert len(answer["Success"]) == len(files)

        never_sent = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "SOPInstanceUID": "1.2.3"}
        body = {"DicomInstances": [never_sent]}
        asked = orthanc.http.post("/modalities/cmbnode/storage-commitment", json=body).raise_for_status().json()
        answer = wait_for(lambda: _report(orthanc, asked["ID"]), 60)
        assert answer["Status"] == "Failure"
        assert [failure["FailureReason"] for failure in answer["Failures"]] == [0x0112]

        ledger = Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")
        try:
            job = wait_for(lambda: next(iter(ledger.jobs_of_study(uid)), None), 120)
            wait_for(lambda: {d.state.value for d in ledger.deliveries(job.id)} == {"committed"}, 120)
            assert ledger.job(job.id).state == "delivered"
        finally:
            ledger.close()
        assert "committed to keep it" in node.command("show", str(job.id)).stdout


def _report(orthanc: Orthanc, transaction: str) -> Any:
    """What Orthanc was told about a transaction; nothing while it waits."""
    answer = orthanc.get(f"/storage-commitment/{transaction}")
    return None if answer["Status"] == "Pending" else answer

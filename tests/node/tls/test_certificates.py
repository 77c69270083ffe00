"""A certificate that expires within 30 days is told of: in the log, on every page, in health check and metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from node.archive import Archive
from node.ledger import Ledger
from node.run.sweep import Sweep
from node.settings import Settings
from node.tls.certificates import certificate_expiries, certificate_notices
from node.web.app import create_app
from tests.certificates import DAY, Authority, Identity

CA_DAYS = 3650


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def settings_with(folder: Path, authority: Authority, own: Identity) -> Settings:
    files = {"certificate": str(own.certificate), "certificate_key": str(own.key), "ca_file": str(authority.ca_file)}
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "tls": True, **files}
    return Settings(data_dir=folder, receiver={"tls": files}, destinations={"pacs": pacs})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("valid", "words"),
    [
        (31 * DAY, ""),
        (29 * DAY + timedelta(hours=1), "expires in 29 days, on "),
        (1 * DAY + timedelta(hours=1), "expires tomorrow, on "),
        (timedelta(hours=1), "expires within a day, on "),
        (-1 * DAY, "expired on "),
    ],
)
def test_a_certificate_is_told_of_30_days_ahead(
    tmp_path: Path, authority: Authority, valid: timedelta, words: str
) -> None:
    own = authority.issue("cmbnode", valid=valid)
    notices = certificate_notices(settings_with(tmp_path, authority, own))
    assert len(notices) == (2 if words else 0)
    for notice, setting in zip(notices, ("receiver.tls.certificate", "destinations.pacs.certificate"), strict=False):
        assert f"{own.certificate} ({setting}) {words}" in notice
        assert "no restart is needed" in notice


def test_an_authority_is_told_of_too_and_a_damaged_file(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("damaged")
    settings = settings_with(tmp_path, authority, own)
    own.certificate.write_text("nonsense")
    notices = certificate_notices(settings, datetime.now(UTC) + (CA_DAYS - 1) * DAY)
    settings_named = [notice.split(" (")[1].split(")")[0] for notice in notices]
    assert settings_named == [
        f"{user}.{file}" for user in ("receiver.tls", "destinations.pacs") for file in ("certificate", "ca_file")
    ]
    assert "cannot be read; connections that need it fail" in notices[0]


def test_a_renewed_certificate_is_told_of_no_longer(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("renewed", valid=DAY)
    settings = settings_with(tmp_path, authority, own)
    assert certificate_notices(settings)
    authority.issue("renewed", into=own)
    assert certificate_notices(settings) == []


def test_log_page_health_check_and_metrics_tell_of_it(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("soon", valid=3 * DAY + timedelta(hours=1))
    settings = settings_with(tmp_path, authority, own)
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    try:
        with capture_logs() as log:
            Sweep(settings, ledger, Archive(tmp_path, 0), Mock()).look_at_certificates()
        assert ["expires in 3 days" in line["event"] for line in log] == [True, True]
        web = TestClient(create_app(settings, ledger), base_url="http://127.0.0.1")
        assert "expires in 3 days" in web.get("/sign-in").text
        assert "expires in 3 days" in web.get("/healthz").json()["certificates"]
        at = next(one.expires_at for one in certificate_expiries(settings))
        assert at is not None
        (line,) = [
            line
            for line in web.get("/metrics").text.splitlines()
            if line.startswith('cmbnode_certificate_expiry_timestamp_seconds{setting="receiver.tls.certificate"}')
        ]
        assert float(line.split()[-1]) == at.timestamp()
    finally:
        ledger.close()

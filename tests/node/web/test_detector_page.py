"""The page of the detector's findings shows scanners and months, no patient, and gives the same rows as CSV."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from pathlib import Path

from node.ledger.access_records import AuditAction
from node.roles import UserRole
from node.web.app import create_app
from tests.node.people import add, browser, settings_for, sign_in
from tests.node.seeded import Seeder


def analysed(seeder: Seeder, key: str, lesions: int) -> None:
    seeder.receive(key, "Hopper^Grace", f"P-{key}", images=1)
    seeder.settle(key)
    seeder.open(key)
    seeder.analyse(key, lesions)


def test_a_reader_sees_each_month_and_takes_it_as_csv(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    now = seeder.now
    seeder.now = now - timedelta(days=400)
    analysed(seeder, "long ago", 1)
    seeder.now = now
    for n in range(3):
        analysed(seeder, f"study {n}", 2 * n)
    add(seeder.ledger, "ada", UserRole.READER)
    with browser(create_app(settings_for(fast_folder / "node"), seeder.ledger)) as web:
        refused = web.get("/detector", follow_redirects=False)
        sign_in(web, "ada")
        page, rows = web.get("/detector"), csv.DictReader(io.StringIO(web.get("/detector.csv").text))
        (row, old), recent = list(rows), web.get("/detector.csv?months=1").text
        wrong = web.get("/detector?months=0")
    looked = [entry.detail for entry in seeder.ledger.audit() if entry.action == AuditAction.DETECTOR]
    seeder.ledger.close()
    assert refused.status_code == 303
    assert 'href="/detector.csv?months=13" download' in page.text
    assert "Scanner not named" in page.text
    assert "Hopper" not in page.text
    assert row["month"] == f"{now.astimezone():%Y-%m}"
    assert (row["studies"], row["findings"], row["findings_median"], row["no_finding"]) == ("3", "6", "2.0", "1")
    assert (old["studies"], old["findings"]) == ("1", "1")
    assert len(recent.splitlines()) == 2
    assert wrong.status_code == 422
    assert looked == ["1 months, CSV", "60 months, CSV", "13 months"]


def test_a_scanners_name_is_no_formula_in_a_spreadsheet(fast_folder: Path) -> None:
    seeder = Seeder(fast_folder / "node")
    analysed(seeder, "one", 1)
    with seeder.ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE series SET manufacturer = '=HYPERLINK(\"x\")', station_name = '<b>MR1</b>'")
    add(seeder.ledger, "ada", UserRole.READER)
    with browser(create_app(settings_for(fast_folder / "node"), seeder.ledger)) as web:
        sign_in(web, "ada")
        page, text = web.get("/detector").text, web.get("/detector.csv").text
    seeder.ledger.close()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["scanner"] == '\'=HYPERLINK("x") <b>MR1</b>'
    assert "<b>MR1" not in page

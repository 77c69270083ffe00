"""Log lines: one line each, for people or for machines, and never a patient in them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LINES = """
import logging, sys, warnings
import structlog
from node.settings import Settings
from node.logs import set_up_logging
from pipeline.errors import InputError

set_up_logging(Settings(log_format=sys.argv[1]))
log = structlog.get_logger("node.test")

def fail(error):
    try:
        raise error
    except Exception:
        log.error("it failed", study="1.2.3", exc_info=True)
        logging.getLogger("somebody.else").exception("theirs failed")

log.info("stored", calling_ae="PACS\\n\\x1b[2Jforged line")
fail(ValueError("cannot decode 'Doe^John'"))
fail(InputError("slices are missing", where="series 4"))
fail(FileNotFoundError(2, "No such file", "/data/x"))
warnings.warn("Invalid value for VR PN: 'Doe^John'")
import pydicom.config
pydicom.config.logger.warning("PatientName 'Doe^John'")
logging.getLogger("pydicom.pixels").error("PatientName 'Doe^John'")
"""


def lines(style: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", LINES, style], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_line_quotes_a_value_or_is_forged(style: str) -> None:
    text = "\n".join(lines(style))
    assert "Doe" not in text
    assert "\x1b[2J" not in text
    assert len(lines(style)) == 7
    assert "slices are missing" in text


def test_json_lines_are_documents_that_say_what_failed_and_where() -> None:
    documents = [json.loads(line) for line in lines("json")]
    assert documents[0]["event"] == "stored"
    assert [document.get("error") for document in documents[1::2]] == [
        "ValueError",
        "InputError: series 4: slices are missing",
        "FileNotFoundError: [Errno 2] No such file: '/data/x'",
    ]
    assert documents[1]["at"] == "<string>:13 fail"
    assert (documents[1]["study"], documents[1]["level"]) == ("1.2.3", "error")

"""The log events on the page are those of the code, and every error is on the page."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}


@lru_cache
def _calls() -> list[tuple[str, str, set[str]]]:
    """Event, level and fields of every line that the node logs with words of its own."""
    calls = []
    for path in sorted((ROOT / "node").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            logger, event = node.func.value, node.args[0]
            is_log = isinstance(logger, ast.Name) and logger.id in ("_log", "log") and node.func.attr in LEVELS
            if is_log and isinstance(event, ast.Constant):
                fields = {keyword.arg or "" for keyword in node.keywords} - {"exc_info", ""}
                calls.append((str(event.value), LEVELS[node.func.attr], fields))
    return calls


def _page() -> dict[str, tuple[str, set[str]]]:
    text = (ROOT / "docs" / "watch.md").read_text()
    table = text[text.index("| event | level | fields |") :]
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| (.*?) ?\|$", table, re.MULTILINE)
    return {event: (level, set(re.findall(r"`(\w+)`", fields))) for event, level, fields in rows}


def test_each_event_on_the_page_is_logged_with_these_fields() -> None:
    logged: dict[str, list[tuple[str, set[str]]]] = {}
    for event, level, fields in _calls():
        logged.setdefault(event, []).append((level, fields))
    page = _page()
    assert len(page) > 25
    for event, (level, fields) in page.items():
        assert event in logged, event
        assert all(level == found and fields <= given for found, given in logged[event]), (event, logged[event])


def test_every_error_that_the_node_logs_is_on_the_page() -> None:
    errors = {event for event, level, _ in _calls() if level == "error"}
    assert errors - set(_page()) == set()

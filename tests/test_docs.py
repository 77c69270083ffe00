"""The documentation says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from node.config import Settings
from node.rules import load_table
from pipeline.recognition import load_rules

ROOT = Path(__file__).parents[1]


def test_the_settings_page_lists_every_setting_as_the_code_has_it() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["reference"]()
    assert (ROOT / "docs" / "settings.md").read_text() == reference, "run: python docs/make_settings.py"


def examples(kind: str) -> list[str]:
    """TOML blocks of the page on PACS whose first line says that they are of this kind."""
    page = (ROOT / "docs" / "connect-a-pacs.md").read_text()
    return [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if block.startswith(f"# {kind}: ")]


def test_the_recognition_rules_on_the_page_are_taken(tmp_path: Path) -> None:
    assert len(examples("recognition")) == 2
    for number, text in enumerate(examples("recognition")):
        (tmp_path / f"{number}.toml").write_text(text)
        own, shipped = load_rules(tmp_path / f"{number}.toml"), load_rules()
        assert len(own.rule) > len(shipped.rule)


def test_the_routing_rules_on_the_page_are_taken(tmp_path: Path) -> None:
    (text,) = examples("routing")
    (tmp_path / "routing.toml").write_text(text)
    table = load_table(Settings(data_dir=tmp_path, routing_file=tmp_path / "routing.toml"))
    assert [rule.action for rule in table.rule] == ["analyse", "ignore", "analyse", "ignore"]

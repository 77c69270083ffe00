"""The rule table: ordered, checked when it is read, and extended by a site without code."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.read.headers import Facts
from pipeline.read.recognition import SHIPPED, SeriesRole, load_rules

MR = ("SOPClassUID", ("1.2.840.10008.5.1.4.1.1.4",))


def facts(**fields: tuple[str, ...]) -> Facts:
    return Facts((MR, *fields.items()))


def table(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_the_shipped_table_is_whole_and_its_last_rule_takes_everything() -> None:
    rules = load_rules()
    assert len({rule.name for rule in rules.rule}) == len(rules.rule)
    assert rules.judge(facts()).rule == rules.rule[-1].name
    assert all(rule.why for rule in rules.rule)
    assert "SequenceName" in rules.fields
    assert not rules.fields & {"kin", "frame_kin"}


def test_a_site_rule_comes_before_the_shipped_ones(tmp_path: Path) -> None:
    site = table(
        tmp_path,
        """
        schema = "cmb-recognition/1"
        [[rule]]
        name = "our-venous-bold"
        role = "swi"
        why = "our protocol VenBOLD is the weighted image"
        all = [{ field = "text", matches = "venbold" }]
        """,
    )
    image = facts(text=("VenBOLD tra",), tokens=("ORIGINAL", "PRIMARY", "M"), value3=("M",))
    assert load_rules().judge(image).role == SeriesRole.OTHER
    verdict = load_rules(site).judge(image)
    assert (verdict.role, verdict.rule, verdict.needs_confirmation) == (SeriesRole.SWI, "our-venous-bold", False)


def test_a_site_definition_widens_the_shipped_one(tmp_path: Path) -> None:
    site = table(tmp_path, '[define.swi-name]\nany = [{ field = "text", matches = "venbold" }]')
    rules = load_rules(site)
    for name in ("VenBOLD", "SWI"):
        verdict = rules.judge(facts(text=(name,), value3=("P",)))
        assert (verdict.role, verdict.needs_confirmation) == (SeriesRole.PHASE, True)


def test_numbers_are_compared(tmp_path: Path) -> None:
    test = '{field = "EchoTime", above = 12, below = 30}'
    rule = f'[[rule]]\nname = "late"\nrole = "t2star"\nwhy = "late echo"\nall = [{test}]'
    rules = load_rules(table(tmp_path, rule))
    roles = {time: rules.judge(facts(EchoTime=(time,))).role for time in ("12", "12.5", "30", "late", "")}
    assert [time for time, role in roles.items() if role == SeriesRole.T2STAR] == ["12.5"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule]", "not valid TOML"),
        ('[[rule]]\nname = "x"\nrole = "swi"', "rule.0.why"),
        ('[[rule]]\nname = "x"\nrole = "best"\nwhy = "y"', "rule.0.role"),
        ('[[rule]]\nname = "x"\nrole = "swi"\nwhy = "y"\nphase_sign = 1', "phase_sign is valid only"),
        ('[[rule]]\nname = "x"\nrole = "phase"\nwhy = "y"\nphase_sign = 2', "rule.0.phase_sign"),
        ('[define.a]\nany = [{ field = "NoSuchKeyword", has = ["1"] }]', "NoSuchKeyword"),
        ('[define.a]\nany = [{ field = "Modality", matches = "(" }]', "regular expression"),
        ('[define.a]\nany = [{ field = "Modality" }]', "a test needs"),
        ('[define.a]\nany = [{ is = "b", field = "Modality", has = ["MR"] }]', "not several"),
        ('[define.a]\nany = [{ is = "nowhere" }]', "no definition named 'nowhere'"),
        ('[define.a]\nany = [{ is = "a" }]', "refers to itself"),
        ('[define.a]\nany = [{ is = "b" }]\n[define.b]\nany = [{ is = "a" }]', "refers to itself"),
    ],
)
def test_a_faulty_table_is_refused_with_the_place_in_it(text: str, complaint: str, tmp_path: Path) -> None:
    site = table(tmp_path, text)
    with pytest.raises(InputError, match=str(site.name)) as caught:
        load_rules(site)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")
    assert SHIPPED.is_file()

"""A rule table says what happens to each series of a study, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from pydicom import Dataset

from node.ledger import Priority
from node.route.routing import Plan, SeriesAction, plan
from node.route.rules import RoutingTable, SeriesOrigin, load_table
from node.settings import ConfigError, Settings
from pipeline.read.study import read_studies
from tests.dicom_factory import classic, siemens_swi, write

from .swi_example import IGNORE_REST, PACS, SWI, swi_rule, swi_study


def two_swi(description: str) -> list[Dataset]:
    """SWI as series 11 and again as series 21."""
    tags = {"SequenceName": "*swi3d1r"}
    return [*siemens_swi(SWI), *classic(SWI, series_number=21, description=description, tags=tags)]


def one_rule(more: str) -> str:
    return f'[[rule]]\nname = "a"\n{more}\n'


def planned(
    table: RoutingTable,
    settings: Settings,
    folder: Path,
    images: Iterable[Dataset] | None = None,
    origin: SeriesOrigin | None = None,
) -> Plan:
    (study,), _ = read_studies(write(list(images or swi_study()), folder / "images", names="{n:04d}.dcm"))
    return plan(study, {s.series_instance_uid: origin or SeriesOrigin() for s in study.series}, table, settings)


def by_number(result: Plan) -> dict[int | None, tuple[SeriesAction, str]]:
    return {s.series.series_number: (s.action, s.why) for s in result.series}


def test_the_swi_is_analysed_with_its_phase_and_magnitude_and_the_rest_is_told_why(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    result = planned(rules(swi_rule()), settings, tmp_path)
    actions = by_number(result)
    assert {number: action for number, (action, _) in actions.items()} == {
        2: SeriesAction.IGNORE,
        8: SeriesAction.USE,
        9: SeriesAction.USE,
        10: SeriesAction.IGNORE,
        11: SeriesAction.ANALYSE,
    }
    assert actions[9][1] == "phase, used with SWI series 11 (SWI_Images)"
    assert actions[8][1] == "magnitude, used with SWI series 11 (SWI_Images)"
    assert all(why for _, why in actions.values())
    assert (result.priority, result.destinations) == (Priority.ROUTINE, ("pacs", "research"))


def test_the_table_in_the_package_says_why_a_projection_is_not_analysed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", destinations=PACS)
    result = planned(load_table(settings), settings, tmp_path)
    action, why = by_number(result)[10]
    assert action is SeriesAction.IGNORE
    assert why.startswith("minimum-intensity projection, never analysed")
    assert (result.profile, result.priority, result.destinations) == ("default", Priority.ROUTINE, ("pacs", "research"))


def test_a_rule_sets_profile_priority_and_destinations(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    table = rules(swi_rule('priority = "stat"\ndestinations = "research"'))
    result = planned(table, settings, tmp_path)
    assert (result.priority, result.destinations) == (Priority.STAT, ("research",))
    assert result.profile is not None
    assert result.profile.endswith("quick.toml")


@pytest.mark.parametrize(
    ("condition", "origin"),
    [
        ('calling_ae = "STROKE"', SeriesOrigin(calling_ae="STROKE")),
        ('calling_ae = ["OTHER", "STROKE"]', SeriesOrigin(calling_ae="STROKE")),
        ('manufacturer = "^siemens"', SeriesOrigin(manufacturer="SIEMENS Healthineers")),
        ('study_description = "emergency|stroke"', SeriesOrigin(study_description="MR Head EMERGENCY")),
        ('station = "MR0[12]"', SeriesOrigin(station="MR02")),
        ('institution = "general"', SeriesOrigin(institution="Hôpital Général / General")),
    ],
)
def test_the_first_rule_that_fits_decides(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path, condition: str, origin: SeriesOrigin
) -> None:
    urgent = f'[[rule]]\nname = "urgent"\n{condition}\naction = "analyse"\nprofile = "@quick"\npriority = "stat"\n'
    table = rules(urgent + swi_rule())
    assert planned(table, settings, tmp_path / "fits", origin=origin).priority is Priority.STAT
    assert planned(table, settings, tmp_path / "not").priority is Priority.ROUTINE


def test_an_swi_that_a_rule_sets_aside_leaves_room_for_another(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    twice = [
        *siemens_swi(SWI),
        *classic(SWI, series_number=21, description="SWI_fast", tags={"SequenceName": "*swi3d1r"}),
    ]
    fast = '[[rule]]\nname = "fast"\nseries_description = "fast"\naction = "ignore"\nwhy = "too coarse"\n'
    result = planned(rules(fast + swi_rule()), settings, tmp_path, twice)
    actions = by_number(result)
    assert actions[11][0] is SeriesAction.ANALYSE
    assert actions[21][0] is SeriesAction.IGNORE
    assert actions[21][1].startswith("too coarse")
    slow = fast.replace('"fast"\nseries_description = "fast"', '"slow"\nseries_description = "images"')
    assert by_number(planned(rules(slow + swi_rule()), settings, tmp_path / "2", twice))[21][0] is SeriesAction.ANALYSE


def test_of_two_swi_series_one_is_analysed_and_the_other_told_so(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    twice = [
        *siemens_swi(SWI),
        *classic(SWI, series_number=21, description="SWI_Images", tags={"SequenceName": "*swi3d1r"}),
    ]
    actions = by_number(planned(rules(swi_rule()), settings, tmp_path, twice))
    assert sorted(action for action, _ in actions.values()) == ["analyse", "ignore", "ignore"]
    (other,) = [why for number, (action, why) in actions.items() if action is SeriesAction.IGNORE and number != 10]
    assert "is analysed instead" in other


def test_nothing_is_used_when_nothing_is_analysed(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    result = planned(rules('[[rule]]\nname = "closed"\naction = "ignore"\nwhy = "in test"\n'), settings, tmp_path)
    assert result.profile is None
    assert result.why == "series 11 (SWI_Images) is SWI, but excluded by rule 'closed': in test"
    assert {action for action, _ in by_number(result).values()} == {SeriesAction.IGNORE}
    knee = rules('[[rule]]\nname = "knee"\nmodality = "CT"\naction = "ignore"\n')
    result = planned(knee, settings, tmp_path / "2")
    assert result.why == "series 11 (SWI_Images) is SWI, but no routing rule matches it"
    assert by_number(result)[2][1].startswith("no routing rule matches it")


def test_a_study_without_swi_says_what_it_has(
    rules: Callable[[str], RoutingTable], settings: Settings, tmp_path: Path
) -> None:
    only_t1 = [ds for ds in swi_study() if ds.SeriesNumber == 2]
    result = planned(rules(swi_rule()), settings, tmp_path, only_t1)
    assert result.profile is None
    assert "no SWI series" in result.why


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 3", "rule: "),
        ("[[rule]\n", "not readable as TOML"),
        ('schema = "cmb-routing/2"\n' + IGNORE_REST, "schema: "),
        (IGNORE_REST + one_rule('action = "maybe"'), r"rule 2 \(a\): action: .*'analyse' or 'ignore'"),
        ('[[rule]]\naction = "ignore"\n', r"rule 1 \(without a name\): name: this entry is required"),
        (one_rule('action = "analyse"'), r"rule 1 \(a\): profile: missing, although the action is analyse"),
        (one_rule('action = "ignore"\nprofile = "x"'), r"rule 1 \(a\): profile: not allowed with the action ignore"),
        (one_rule('action = "ignore"\nrole = "swy"'), r"rule 1 \(a\): role\.0: "),
        (one_rule('action = "ignore"\ncolour = "x"'), r"rule 1 \(a\): colour: there is no such entry$"),
        (
            one_rule('action = "ignore"\nprofil = "x"'),
            r"rule 1 \(a\): profil: there is no such entry; did you mean profile\?",
        ),
        (one_rule('action = "ignore"\nstation = "(("'), r"rule 1 \(a\): station: malformed regular expression"),
        (one_rule('action = "analyse"\nprofile = "none such"'), r"rule 1 \(a\): profile: there is no profile"),
        (swi_rule('destinations = ["nowhere"]'), r"rule 1 \(swi\): destinations: .*'nowhere'.*pacs, research"),
        (swi_rule('priority = "soon"'), r"rule 1 \(swi\): priority: "),
    ],
)
def test_a_bad_table_names_the_rule_and_the_field(
    rules: Callable[[str], RoutingTable], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        rules(text)
    assert "routing.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"routing\.toml: cannot be read"):
        load_table(settings)


def test_routing_imports_neither_torch_nor_simpleitk(settings: Settings, rules: Callable[[str], RoutingTable]) -> None:
    rules(swi_rule())
    code = (
        "import sys; from pathlib import Path; from node.settings import Settings; import node.route.routing;"
        "from node.route.rules import load_table;"
        f"load_table(Settings(routing_file=Path({str(settings.routing_file)!r})));"
        "print([name for name in ('torch', 'SimpleITK') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

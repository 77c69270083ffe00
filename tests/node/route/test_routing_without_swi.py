"""What happens to studies without a derived SWI, and to series only a site's own rules know."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from node.archive import Archive
from node.cli import main
from node.ledger import Ledger, NewInstance
from node.receive.ingest import slice_place
from node.route.routing import Plan, SeriesAction, plan, route_ready
from node.route.rules import load_table
from node.settings import ConfigError, Settings
from node.settings.recognition import recognition
from pipeline.errors import InputError
from pipeline.read.study import read_studies
from tests.dicom_factory import affine, classic, siemens_swi, write

from .swi_example import PROFILE

STORED = np.full((9, 8, 8), 300, dtype=np.uint16)
T2STAR = '[[rule]]\nname = "t2star"\nrole = "t2star"\naction = "analyse"\nprofile = "{profile}"\n'
SITE = """
[[rule]]
name = "our-venous-bold"
role = "swi"
why = "our protocol VenBOLD is the weighted image"
all = [{ field = "text", matches = "venbold" }]
"""

Planner = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planner:
    """Plans a study with a routing table put before the one in the package."""
    (tmp_path / "t2star.toml").write_text(PROFILE + "[suits]\nt2star = true\n")
    (tmp_path / "swi-only.toml").write_text(PROFILE)
    (tmp_path / "site.toml").write_text(SITE)

    def do(images: list[Dataset], rules: str = "", *, site: bool = False) -> Plan:
        shipped = load_table(Settings(data_dir=tmp_path)).model_dump(mode="json", by_alias=True, exclude_none=True)
        text = rules.format(profile=tmp_path / "t2star.toml", other=tmp_path / "swi-only.toml")
        (tmp_path / "routing.toml").write_text(text + _toml(shipped["rule"]))
        settings = Settings(
            data_dir=tmp_path,
            routing_file=tmp_path / "routing.toml",
            recognition_file=tmp_path / "site.toml" if site else None,
        )
        (study,), _ = read_studies(write(images, tmp_path / "images", names="{n:04d}.dcm"), recognition(settings))
        return plan(study, {}, load_table(settings), settings)

    return do


def _toml(rules: list[dict[str, object]]) -> str:
    lines = (f"{name} = {json.dumps(value)}" for rule in rules for name, value in (("", rule["name"]), *rule.items()))
    return "\n".join("[[rule]]" if line.startswith(" =") else line for line in lines)


def actions(result: Plan) -> dict[int | None, str]:
    return {one.series.series_number: one.action.value for one in result.series}


def magnitude_and_phase() -> list[Dataset]:
    return [ds for ds in siemens_swi(STORED, np.zeros(STORED.shape), STORED) if ds.SeriesNumber in (8, 9, 10)]


def t2star() -> list[Dataset]:
    kind = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    matrix = affine(spacing=(0.9, 0.9, 5.0))
    return classic(
        STORED, series_number=5, description="Ax T2* GRE", image_type=kind, matrix=matrix,
        tags={"SequenceName": "*fl2d1"},
    )  # fmt: skip


def test_magnitude_and_phase_without_swi_are_analysed_together(planned: Planner) -> None:
    result = planned(magnitude_and_phase())
    assert actions(result) == {8: "analyse", 9: "analyse", 10: "ignore"}
    assert (result.profile, result.selection.swi) == ("default", None)
    assert "the SWI is computed from the phase of series 9" in result.why


def test_a_site_can_keep_the_node_from_computing_an_swi(planned: Planner) -> None:
    off = '[[rule]]\nname = "off"\nrole = "swi"\ncomputed = true\naction = "ignore"\nwhy = "not here"\n'
    result = planned(magnitude_and_phase(), off)
    assert result.profile is None
    assert result.why == "the SWI that could be computed from magnitude and phase, but excluded by rule 'off': not here"
    assert set(actions(result).values()) == {"ignore"}
    assert actions(planned(siemens_swi(STORED), off))[11] == "analyse"


def test_an_swi_that_a_rule_sets_aside_is_not_computed_again(planned: Planner) -> None:
    off = '[[rule]]\nname = "off"\nrole = "swi"\nseries_description = "SWI_Images"\naction = "ignore"\n'
    result = planned(siemens_swi(STORED, np.zeros(STORED.shape), STORED), off)
    assert result.profile is None
    assert "excluded by rule 'off'" in result.why


def test_a_t2star_series_is_ignored_and_the_reason_told(planned: Planner) -> None:
    result = planned(t2star())
    assert actions(result) == {5: "ignore"}
    assert "T2*-weighted, there is no SWI" in result.why
    assert "no rule names a profile for it" in result.why


def test_a_t2star_series_is_analysed_where_rule_and_profile_allow_it(planned: Planner) -> None:
    result = planned(t2star(), T2STAR)
    assert actions(result) == {5: "analyse"}
    assert result.selection.swi is not None
    assert "is used instead" in result.why
    both = planned([*t2star(), *siemens_swi(STORED)], T2STAR)
    assert actions(both) == {5: "ignore", 10: "ignore", 11: "analyse"}


def test_a_profile_that_does_not_accept_t2star_is_named(planned: Planner) -> None:
    with pytest.raises(ConfigError, match=r"rule 1 \(t2star\): profile: swi-only does not accept"):
        planned(t2star(), T2STAR.replace("{profile}", "{other}"))
    result = planned(t2star(), '[[rule]]\nname = "all"\naction = "analyse"\nprofile = "{other}"\n')
    assert result.profile is None
    assert "only some profiles accept" in result.why
    assert "swi-only.toml does not" in result.why


def venbold() -> list[Dataset]:
    return classic(STORED, description="VenBOLD tra", image_type=["DERIVED", "PRIMARY", "OTHER"])


def test_a_site_table_named_in_the_settings_makes_a_series_known(planned: Planner) -> None:
    assert planned(venbold()).profile is None
    result = planned(venbold(), site=True)
    assert [(one.action, one.series.rule) for one in result.series] == [(SeriesAction.ANALYSE, "our-venous-bold")]


def test_route_takes_a_site_table_as_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(venbold(), tmp_path / "images")
    (tmp_path / "site.toml").write_text(SITE)
    for rules, role in (([], "other"), (["--rules", str(tmp_path / "site.toml")], "swi")):
        assert main(["route", str(tmp_path / "images"), "--data", str(tmp_path), "--json", *rules]) == 0
        assert [one["role"] for one in json.loads(capsys.readouterr().out)["series"]] == [role]


@pytest.mark.parametrize("command", ["route", "detect"])
def test_a_faulty_site_table_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(venbold(), tmp_path / "images")
    (tmp_path / "site.toml").write_text('[[rule]]\nname = "x"\nrole = "best"\nwhy = "y"\n')
    more = ["--out", str(tmp_path / "out")] if command == "detect" else ["--data", str(tmp_path)]
    assert main([command, str(tmp_path / "images"), "--rules", str(tmp_path / "site.toml"), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "site.toml: rule.0.role" in line


def test_a_missing_site_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        recognition(Settings(data_dir=tmp_path, recognition_file=tmp_path / "none.toml"))


def test_a_study_is_looked_through_again_when_the_rules_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    old = Settings(data_dir=tmp_path)
    new = Settings(data_dir=tmp_path, recognition_file=tmp_path / "site.toml")
    images = venbold()
    uid = str(images[0].StudyInstanceUID)
    ledger, archive = Ledger(old.ledger_url), Archive(tmp_path, 0)
    ledger.upgrade()
    for ds, path in zip(images, write(images, tmp_path / "images"), strict=True):
        stored = archive.store(ds.SOPInstanceUID, ds.SeriesInstanceUID, uid, path.read_bytes())
        key, position = slice_place(ds.ImageOrientationPatient, ds.ImagePositionPatient)
        record = NewInstance(
            sop_instance_uid=ds.SOPInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_instance_uid=ds.SeriesInstanceUID,
            study_instance_uid=uid,
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            received_at=datetime.now(UTC),
            orientation=key,
            position=position,
            modality="MR",
        )
        ledger.record_instance(record)
    ledger.settle_series(images[0].SeriesInstanceUID, "quiet")
    assert route_ready(ledger, archive, load_table(old), old) == []
    assert route_ready(ledger, archive, load_table(new), new) == []  # it was routed
    assert main(["reroute", uid, "--data", str(tmp_path)]) == 0
    (job,) = route_ready(ledger, archive, load_table(new), new)
    assert job.swi_series_uid == images[0].SeriesInstanceUID
    assert "to be routed again" in {change.to_state for change in ledger.history("study", uid)}
    assert main(["reroute", "1.2.3", "--data", str(tmp_path)]) == 2
    assert "no such study" in capsys.readouterr().err
    ledger.close()

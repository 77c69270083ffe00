from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from node.archive import Archive
from node.ledger import JobState, Ledger, NewInstance, Priority, SeriesState
from node.receive.ingest import slice_place
from node.route.routing import Plan, RoutingError, SeriesAction, plan, route_ready, route_study
from node.route.rules import RoutingTable, SeriesOrigin, load_table
from node.settings import ConfigError, DicomDestination, Settings
from pipeline.read.study import read_studies
from tests.dicom_factory import Patient, classic, siemens_swi, write
from tests.node.conftest import Clock

PACS = {name: DicomDestination(ae_title=name.upper(), host="127.0.0.1", port=104) for name in ("pacs", "research")}
SWI = np.full((9, 8, 8), 300, dtype=np.uint16)
PROFILE = """
description = "for these tests"
[candidates]
method = "kmeans"
[rating]
offset = 0.0
weights = { response = 0.1 }
[thresholds]
possible = 0.3
definite = 0.6
"""
IGNORE_REST = '[[rule]]\nname = "rest"\naction = "ignore"\n'


def swi_study(patient: Patient | None = None) -> list[Dataset]:
    """Magnitude 8, phase 9, mIP 10 and SWI 11 of a Siemens protocol, and a T1 as series 2."""
    patient = patient or Patient()
    images = siemens_swi(SWI, np.zeros(SWI.shape), SWI, patient=patient)
    t1 = {"SequenceName": "*tfl3d1_16ns", "ScanningSequence": ["GR", "IR"], "EchoTime": 2.5}
    kind = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
    return [*images, *classic(SWI, patient=patient, series_number=2, description="t1_mprage", image_type=kind, tags=t1)]


def two_swi(description: str) -> list[Dataset]:
    """SWI as series 11 and again as series 21."""
    tags = {"SequenceName": "*swi3d1r"}
    return [*siemens_swi(SWI), *classic(SWI, series_number=21, description=description, tags=tags)]


def one_rule(more: str) -> str:
    return f'[[rule]]\nname = "a"\n{more}\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with the site's own table, which a test writes with `rules`."""
    (tmp_path / "quick.toml").write_text(PROFILE, encoding="utf-8")
    return Settings(data_dir=tmp_path / "data", routing_file=tmp_path / "routing.toml", destinations=PACS)


@pytest.fixture
def rules(settings: Settings) -> Callable[[str], RoutingTable]:
    """Writes a rule table and loads it; ``@quick`` stands for a profile."""

    def write_table(text: str) -> RoutingTable:
        file = settings.routing_file
        assert file is not None
        quick = file.with_name("quick.toml")
        file.write_text(text.replace("@quick", str(quick)), encoding="utf-8")
        return load_table(settings)

    return write_table


def swi_rule(more: str = "") -> str:
    return f'[[rule]]\nname = "swi"\nrole = "swi"\naction = "analyse"\nprofile = "@quick"\n{more}\n{IGNORE_REST}'


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


# The whole step: from what the ledger and the archive hold to a job.


class Node:
    """A ledger and an archive that images can be put into, as the receiver would."""

    def __init__(self, ledger: Ledger, settings: Settings, table: RoutingTable, clock: Clock) -> None:
        self.ledger, self.settings, self.table, self.clock = ledger, settings, table, clock
        self.archive = Archive(settings.data_dir)

    def receive(self, images: Iterable[Dataset], folder: Path) -> None:
        images = list(images)
        for ds, file in zip(images, write(images, folder, names="{n:04d}.dcm"), strict=True):
            stored = self.archive.store(ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID, file.read_bytes())
            key, position = slice_place(ds.get("ImageOrientationPatient"), ds.get("ImagePositionPatient"))
            self.ledger.record_instance(
                NewInstance(
                    sop_instance_uid=ds.SOPInstanceUID,
                    sop_class_uid=ds.SOPClassUID,
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    series_instance_uid=ds.SeriesInstanceUID,
                    study_instance_uid=ds.StudyInstanceUID,
                    path=stored.path,
                    size=stored.size,
                    sha256=stored.sha256,
                    received_at=self.clock(),
                    orientation=key,
                    position=position,
                    series_number=ds.SeriesNumber,
                    modality=ds.Modality,
                )
            )

    def settle(self, whole: bool = True) -> None:
        for series in self.ledger.series_receiving():
            self.ledger.settle_series(series.series_instance_uid, "quiet, though a slice is missing", whole=whole)

    def route(self) -> list[int]:
        return [job.id for job in route_ready(self.ledger, self.archive, self.table, self.settings)]


@pytest.fixture
def node(ledger: Ledger, settings: Settings, rules: Callable[[str], RoutingTable], clock: Clock) -> Node:
    return Node(ledger, settings, rules(swi_rule()), clock)


def test_a_settled_study_gets_one_job(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    study_uid = images[0].StudyInstanceUID
    node.receive(images, tmp_path / "a")
    assert node.route() == []  # not settled
    node.settle()
    (job_id,) = node.route()
    job = node.ledger.job(job_id)
    uids = {ds.SeriesNumber: ds.SeriesInstanceUID for ds in images}
    assert (job.swi_series_uid, job.phase_series_uid, job.magnitude_series_uid) == (uids[11], uids[9], uids[8])
    assert (job.state, job.destinations, job.warnings) == (JobState.QUEUED, ("pacs", "research"), ())
    series = {s.series_number: s for s in node.ledger.series(study_uid)}
    assert series[11].state is SeriesState.SETTLED
    assert (series[10].state, series[10].role) == (SeriesState.IGNORED, "mip")
    assert "never analysed" in series[10].why
    assert series[9].why == "phase, used with SWI series 11 (SWI_Images)"
    assert node.route() == []  # once
    assert "series 11" in node.ledger.study(study_uid).why


def test_another_series_that_comes_later_changes_nothing(node: Node, tmp_path: Path) -> None:
    node.receive([ds for ds in swi_study() if ds.SeriesNumber != 2], tmp_path / "a")
    node.settle()
    first = node.route()
    node.receive([ds for ds in swi_study() if ds.SeriesNumber == 2], tmp_path / "b")
    node.settle()
    assert node.route() == first
    assert node.ledger.counts().jobs == {"queued": 1}


def test_a_late_slice_makes_a_new_job(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    late = next(ds for ds in images if ds.SeriesNumber == 11)
    node.receive([ds for ds in images if ds is not late], tmp_path / "a")
    node.settle(whole=False)
    (first,) = node.route()
    assert any("series 11 may be incomplete" in warning for warning in node.ledger.job(first).warnings)
    node.receive([late], tmp_path / "b")
    node.settle()
    (second,) = node.route()
    assert node.ledger.job(first).state is JobState.SUPERSEDED
    assert node.ledger.job(second).supersedes == first
    assert [job.id for job in node.ledger.queued_jobs()] == [second]


def test_a_file_that_cannot_be_read_is_told(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    node.receive(images, tmp_path / "a")
    swi = next(ds for ds in images if ds.SeriesNumber == 11)
    (path,) = [i.path for i in node.ledger.instances(swi.SeriesInstanceUID) if i.sop_instance_uid == swi.SOPInstanceUID]
    node.archive.path(path).write_bytes(b"\0" * 1000)
    node.settle()
    (job_id,) = node.route()
    (warning,) = node.ledger.job(job_id).warnings
    assert warning.startswith("left out, not readable: ")


def test_a_study_of_which_nothing_can_be_read_is_ignored(node: Node, tmp_path: Path) -> None:
    images = [ds for ds in swi_study() if ds.SeriesNumber == 11]
    node.receive(images, tmp_path / "a")
    for stored in node.ledger.instances(images[0].SeriesInstanceUID):
        node.archive.path(stored.path).write_bytes(b"")
    node.settle()
    assert node.route() == []
    (series,) = node.ledger.series(images[0].StudyInstanceUID)
    assert series.state is SeriesState.IGNORED
    assert "none of its files can be read" in series.why
    assert "none of its files can be read" in node.ledger.study(images[0].StudyInstanceUID).why


def test_one_slice_after_retention_makes_no_result(node: Node, tmp_path: Path) -> None:
    images = [ds for ds in swi_study() if ds.SeriesNumber == 11]
    node.receive(images, tmp_path / "a")
    node.settle()
    (job_id,) = node.route()
    study_uid = images[0].StudyInstanceUID
    node.ledger.claim_job(job_id, "worker", 30)
    node.ledger.fail_attempt(job_id, "worker", "unusable", 3, permanent=True)
    assert node.ledger.mark_removed(study_uid, node.clock())
    node.receive(images[:1], tmp_path / "b")
    node.settle()
    assert node.route() == []
    assert "no longer in the archive" in node.ledger.study(study_uid).why
    node.receive(images, tmp_path / "c")
    node.settle()
    (again,) = node.route()  # all of it: the same images, so the same key
    assert node.ledger.job(again).key == node.ledger.job(job_id).key


def test_a_study_that_changes_while_it_is_routed_stays_ready(node: Node, tmp_path: Path) -> None:
    images = swi_study()
    node.receive([ds for ds in images if ds.SeriesNumber == 11], tmp_path / "a")
    node.settle()
    study_uid = images[0].StudyInstanceUID

    class Slow(Archive):
        """While its paths are asked for, images arrive."""

        def path(self, relative: str) -> Path:
            if not arrived:
                arrived.append(True)
                node.receive([ds for ds in images if ds.SeriesNumber == 9], tmp_path / "b")
            return super().path(relative)

    arrived: list[bool] = []
    job = route_study(node.ledger, Slow(node.settings.data_dir), study_uid, node.table, node.settings)
    assert job is not None
    assert job.phase_series_uid is None
    node.settle()
    (second,) = node.route()
    assert node.ledger.job(second).phase_series_uid is not None
    assert node.ledger.job(job.id).state is JobState.SUPERSEDED


def test_a_study_that_cannot_be_routed_holds_up_no_other(node: Node, tmp_path: Path) -> None:
    uids = []
    for seed in ("first", "second"):
        images = [ds for ds in swi_study(Patient(seed=seed)) if ds.SeriesNumber == 11]
        uids.append(images[0].StudyInstanceUID)
        node.receive(images, tmp_path / seed)
        node.clock.forward(1)
    node.settle()

    class Away(Archive):
        """The files of the first study cannot be reached."""

        def path(self, relative: str) -> Path:
            if uids[0] in relative:
                raise OSError("the disk is away")
            return super().path(relative)

    with pytest.raises(RoutingError, match=r"1 not routed yet: OSError: the disk is away"):
        route_ready(node.ledger, Away(node.settings.data_dir), node.table, node.settings)
    assert [job.study_instance_uid for job in node.ledger.queued_jobs()] == [uids[1]]
    (job_id,) = node.route()  # it is back
    assert node.ledger.job(job_id).study_instance_uid == uids[0]

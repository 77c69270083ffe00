from __future__ import annotations

from dataclasses import replace

import pytest

from node.ledger import Ledger, SeriesState, SeriesVerdict, StorageOutcome, StudyState
from tests.node.conftest import Clock
from tests.node.ledger_factory import instance, job_of_new_study, receive, settle_and_route, uid


def state(ledger: Ledger, study: str = "study", series: str = "swi") -> SeriesState:
    return next(s.state for s in ledger.series(uid(study)) if s.series_instance_uid == uid(study, series))


def test_a_new_instance_opens_its_study_and_series(ledger: Ledger, clock: Clock) -> None:
    assert ledger.record_instance(instance("study", "swi", 1, clock())) is StorageOutcome.NEW
    study = ledger.study(uid("study"))
    (series,) = ledger.series(uid("study"))
    assert (study.patient_name, study.revision, study.routed_revision) == ("Doe^Jane", 1, None)
    assert (series.state, series.revision, series.instance_count) == (SeriesState.RECEIVING, 1, 1)
    assert study.first_received_at == clock()
    assert [c.to_state for c in ledger.history("series", uid("study", "swi"))] == ["receiving"]


def test_the_same_bytes_again_count_nothing_and_reopen_nothing(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    settle_and_route(ledger, "study")
    assert ledger.record_instance(instance("study", "swi", 1, clock.forward(60))) is StorageOutcome.DUPLICATE
    (series,) = ledger.series(uid("study"))
    assert (series.state, series.instance_count, series.revision) == (SeriesState.SETTLED, 3, 1)
    assert ledger.studies_ready() == []
    assert len(ledger.instances(uid("study", "swi"))) == 3


def test_other_bytes_under_the_same_uid_are_a_conflict_that_changes_nothing(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    other = instance("study", "swi", 1, clock(), sha256="f" * 64, path="elsewhere.dcm")
    assert ledger.record_instance(other) is StorageOutcome.CONFLICT
    assert {i.sha256 for i in ledger.instances(uid("study", "swi"))} == {f"{n:064x}" for n in range(3)}
    number = ledger.quarantine(other, "quarantine/x.dcm", "other bytes under a known UID")
    (kept,) = ledger.quarantined()
    assert (kept.id, kept.path, kept.sop_instance_uid) == (number, "quarantine/x.dcm", uid("study", "swi", 1))
    assert ledger.counts().quarantined == 1


def test_a_series_that_claims_another_study_is_a_conflict(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    stray = replace(instance("study", "swi", 9, clock()), study_instance_uid=uid("other"))
    assert ledger.record_instance(stray) is StorageOutcome.CONFLICT
    assert len(ledger.instances(uid("study", "swi"))) == 3
    assert ledger.counts().studies == 1


def test_a_late_slice_reopens_its_series_and_asks_for_routing(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    settle_and_route(ledger, "study")
    assert ledger.record_instance(instance("study", "swi", 7, clock.forward(60))) is StorageOutcome.NEW
    (series,) = ledger.series(uid("study"))
    assert (series.state, series.revision, series.instance_count) == (SeriesState.RECEIVING, 2, 4)
    assert ledger.studies_ready() == []  # not before it has settled again
    assert ledger.settle_series(uid("study", "swi"), "quiet")
    assert [s.study_instance_uid for s in ledger.studies_ready()] == [uid("study")]
    changes = [(c.from_state, c.to_state) for c in ledger.history("series", uid("study", "swi"))]
    assert changes == [("", "receiving"), ("receiving", "settled"), ("settled", "receiving"), ("receiving", "settled")]
    assert uid("study", "swi", 7) in ledger.history("series", uid("study", "swi"))[2].why


def test_an_ignored_series_reopens_too(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock(), "mip")
    ledger.settle_series(uid("study", "mip"), "quiet")
    (study,) = ledger.studies_ready()
    ignored = SeriesVerdict(uid("study", "mip"), False, "mip", "projections", "never analysed")
    assert ledger.mark_routed(uid("study"), study.revision, [ignored], "nothing to analyse")
    (series,) = ledger.series(uid("study"))
    assert (series.state, series.role, series.rule, series.why) == ("ignored", "mip", "projections", "never analysed")
    ledger.record_instance(instance("study", "mip", 7, clock()))
    assert state(ledger, series="mip") is SeriesState.RECEIVING


def test_a_series_does_not_settle_under_an_instance_that_just_came(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    (seen,) = ledger.series_receiving()
    ledger.record_instance(instance("study", "swi", 7, clock.forward(1)))
    assert not ledger.settle_series(uid("study", "swi"), "quiet", seen=seen.last_instance_at)
    assert state(ledger) is SeriesState.RECEIVING


def test_the_evidence_of_a_receiving_series_is_told(ledger: Ledger, clock: Clock) -> None:
    for number in range(3):
        ledger.record_instance(instance("study", "swi", number, clock(), association="a1"))
    ledger.record_instance(instance("study", "swi", 3, clock(), association="a2", position=float("nan")))
    (series,) = ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (2, False)
    assert sorted(p for _, p, _ in series.places if p is not None) == [0.0, 2.0, 4.0]
    ledger.release_series([uid("study", "swi")], clock.forward(1), association="a1", aborted=True)
    assert ledger.series_receiving()[0].open_associations == 1
    ledger.release_series([uid("study", "swi")], clock.forward(1), association="a2")
    (series,) = ledger.series_receiving()
    assert (series.open_associations, series.last_ended_released) == (0, True)


def test_a_duplicate_keeps_a_receiving_series_waiting_for_its_association(ledger: Ledger, clock: Clock) -> None:
    ledger.record_instance(instance("study", "swi", 1, clock(), association="a1"))
    ledger.release_series([uid("study", "swi")], clock(), association="a1", aborted=True)
    ledger.record_instance(instance("study", "swi", 1, clock(), association="a2"))
    assert ledger.series_receiving()[0].open_associations == 1


def test_associations_of_a_dead_receiver_can_be_ended(ledger: Ledger, clock: Clock) -> None:
    ledger.record_instance(instance("study", "swi", 1, clock(), association="host-a/1"))
    ledger.record_instance(instance("study", "t1", 1, clock(), association="host_a/2"))
    assert ledger.abandon_associations(clock(), prefix="host-a/") == 1
    assert {s.open_associations for s in ledger.series_receiving()} == {0, 1}
    assert ledger.abandon_associations(clock()) == 1


def test_only_quiet_series_are_looked_at(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "old", clock())
    receive(ledger, "new", clock.forward(60))
    found = ledger.series_receiving(quiet_since=clock.forward(-10))
    assert [s.series_instance_uid for s in found] == [uid("old", "swi")]


def test_a_study_is_ready_only_when_all_its_series_have_settled(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock(), "swi")
    receive(ledger, "study", clock(), "phase")
    ledger.settle_series(uid("study", "swi"), "quiet")
    assert ledger.studies_ready() == []
    ledger.settle_series(uid("study", "phase"), "quiet")
    (ready,) = ledger.studies_ready()
    assert ready.revision == 2


def test_routing_an_outdated_study_notes_nothing(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    ledger.settle_series(uid("study", "swi"), "quiet")
    (seen,) = ledger.studies_ready()
    receive(ledger, "study", clock(), "phase")
    assert not ledger.mark_routed(uid("study"), seen.revision, why="outdated")
    assert ledger.study(uid("study")).why == ""
    ledger.settle_series(uid("study", "phase"), "quiet")
    assert len(ledger.studies_ready()) == 1


def test_a_routed_study_without_a_job_is_shown_as_ignored(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    assert ledger.worklist()[0].state is StudyState.RECEIVING
    settle_and_route(ledger, "study")
    assert ledger.worklist()[0].state is StudyState.IGNORED


def test_text_that_a_database_refuses_is_made_storable(ledger: Ledger, clock: Clock) -> None:
    hostile = "A\0B\ud800" + "x" * 5000
    record = instance("study", "swi", 1, clock(), patient_name=hostile, series_number=10**12, position=float("inf"))
    assert ledger.record_instance(record) is StorageOutcome.NEW
    assert ledger.study(uid("study")).patient_name.startswith("AB?xxx")
    assert ledger.series(uid("study"))[0].series_number is None


def test_a_removed_image_that_is_sent_again_is_new(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    assert not ledger.mark_removed(uid("study"), clock()), "not while a job needs them"
    ledger.claim_job(job.id, "worker", 30)
    ledger.fail_attempt(job.id, "worker", "unusable", 3, permanent=True)
    assert ledger.mark_removed(uid("study"), clock())
    assert ledger.job_paths(job.id) == []
    assert ledger.record_instance(instance("study", "swi", 1, clock.forward(5))) is StorageOutcome.NEW
    assert len(ledger.job_paths(job.id)) == 1
    assert state(ledger) is SeriesState.RECEIVING
    assert ledger.study(uid("study")).removed_at is None


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:"])
def test_a_ledger_in_memory_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="file"):
        Ledger(bad)

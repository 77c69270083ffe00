"""A result replaces the last one of which a destination has anything, and knows how many there were."""

from __future__ import annotations

from node.analyse.replacement import replaced_result
from node.ledger import Ledger
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, deliver, job_of_new_study, open_job, uid


def test_the_last_result_that_was_sent_is_replaced(ledger: Ledger, clock: Clock) -> None:
    first = job_of_new_study(ledger, clock.now)
    assert replaced_result(ledger, first) is None
    analyse(ledger, first, "seg", "sr", "report", "rejection")
    deliver(ledger)
    unsent = open_job(ledger, key="unsent")
    analyse(ledger, unsent, "sr")
    third = open_job(ledger, key="third")
    replaced = replaced_result(ledger, third)
    assert replaced is not None
    assert (replaced.key, replaced.revision) == (first.key, 1)
    assert [(one.kind, one.sop_instance_uid) for one in replaced.objects] == [
        (kind, uid("result", kind)) for kind in ("seg", "sr")
    ]
    analyse(ledger, third, "sr")
    deliver(ledger)
    fourth = replaced_result(ledger, open_job(ledger, key="fourth"))
    assert fourth is not None
    assert (fourth.key, fourth.revision) == ("third", 2)

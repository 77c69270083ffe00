"""Whatever happens in whatever order, a request is held by one at a time, and its history tells all of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.ledger import Ledger, Priority, PriorState, TransferCounts
from tests.node.conftest import Clock
from tests.node.ledger_factory import receive, uid

ATTEMPTS, LEASE_S = 3, 10.0
OWNERS = st.sampled_from(["one", "two"])
STEPS = {
    ("", "waiting"), ("waiting", "asked"), ("asked", "asked"), ("asked", "waiting"), ("asked", "fetched"),
    ("asked", "none"), ("asked", "failed"), ("fetched", "waiting"), ("none", "waiting"), ("failed", "waiting"),
}  # fmt: skip


class Requests(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.clock = Clock()
        self.ledger = Ledger(f"sqlite:///{Path(self.folder.name) / 'ledger.sqlite3'}", clock=self.clock)
        self.ledger.upgrade()
        self.study = receive(self.ledger, "present", self.clock())
        self.ledger.ask_for_priors(self.study, Priority.ROUTINE, 100)
        self.holder = ""

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    @rule(owner=OWNERS)
    def claim(self, owner: str) -> None:
        waiting = self.request.state is PriorState.WAITING and self.request.next_attempt_at <= self.clock()
        claimed = self.ledger.claim_prior_request(owner, LEASE_S)
        assert (claimed is not None) == waiting
        self.holder = owner if claimed else self.holder

    @rule(owner=OWNERS)
    def fetch(self, owner: str) -> None:
        mine = owner == self.holder
        assert self.ledger.begin_prior(self.study, owner, uid("prior"), "20240503", 3) is mine
        assert self.ledger.prolong_prior_request(self.study, owner, LEASE_S) is mine
        counts = TransferCounts(3, 3)
        assert self.ledger.end_prior(self.study, owner, uid("prior"), PriorState.FETCHED, "", counts) is mine

    @rule(owner=OWNERS)
    def begin_and_die(self, owner: str) -> None:
        assert self.ledger.begin_prior(self.study, owner, uid("other"), "20200503", 3) is (owner == self.holder)

    @rule(owner=OWNERS, state=st.sampled_from([PriorState.FETCHED, PriorState.NONE]))
    def finish(self, owner: str, state: PriorState) -> None:
        assert self.ledger.finish_prior_request(self.study, owner, state, "") is (owner == self.holder)
        self.holder = "" if owner == self.holder else self.holder

    @rule(owner=OWNERS, again=st.booleans())
    def put_off(self, owner: str, again: bool) -> None:
        at = self.clock() if again else None
        assert self.ledger.put_off_prior_request(self.study, owner, "down", at) is (owner == self.holder)
        self.holder = "" if owner == self.holder else self.holder

    @rule(seconds=st.sampled_from([1.0, LEASE_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.forward(seconds)
        if self.ledger.expire_prior_requests(self.clock(), ATTEMPTS):
            self.holder = ""

    @rule()
    def ask_again(self) -> None:
        over = self.request.state.is_over
        self.ledger.route_again(self.study, "a person")
        self.ledger.ask_for_priors(self.study, Priority.ROUTINE, 100)
        assert not over or (self.request.state, self.request.attempts) == (PriorState.WAITING, 0)

    @property
    def request(self):  # type: ignore[no-untyped-def]
        found = self.ledger.prior_request(self.study)
        assert found is not None
        return found

    @invariant()
    def one_holds_it_or_nobody(self) -> None:
        asked = self.request.state is PriorState.ASKED
        assert (self.request.owner, self.request.lease_expires_at is not None) == (self.holder if asked else "", asked)
        assert asked == bool(self.holder)
        assert (self.request.finished_at is not None) == self.request.state.is_over

    @invariant()
    def the_history_leads_to_where_it_is(self) -> None:
        changes = self.ledger.history("prior", self.study)
        assert {(change.from_state, change.to_state) for change in changes} <= STEPS
        assert changes[-1].to_state == self.request.state
        assert all(a.to_state == b.from_state for a, b in pairwise(changes))

    @invariant()
    def nothing_is_being_fetched_for_a_request_that_is_over(self) -> None:
        if self.request.state.is_over:
            assert all(one.state is not PriorState.ASKED for one in self.ledger.prior_fetches(self.study))


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=12, stateful_step_count=15)

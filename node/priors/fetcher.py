"""How is one request for earlier studies processed? Query the PACS, choose, fetch, and record the outcome.

Requests are processed in threads beside the sweep, so a PACS that does not answer delays nothing else. Each is held by
a lease: the requests of a killed process are processed again.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from node.archive import Archive
from node.leases import Heartbeat
from node.ledger import EarlierStudy, Ledger, PriorRequest, PriorState, StudyRecord, TransferCounts
from node.ledger.patient_matching import identifier_contradiction
from node.logs import explain
from node.retrieve import open_source
from node.retrieve.dicom_dates import in_words
from node.retrieve.head_series import WantedSeries, wanted_series
from node.retrieve.source import FoundStudy, SourceError, StudyQuery, StudySource, TransferLimits
from node.retrieve.threads import WorkThreads
from node.retry import pause_s
from node.settings import Settings
from node.settings.recognition import recognition
from pipeline.errors import InputError

from .choice import shortlist, window

AT_A_TIME = 2
"""Requests processed at the same time, so as not to overload the PACS."""
LOOKED_AT = 10
"""Largest number of studies whose series are queried; the latest ones."""

_log = structlog.get_logger(__name__)


def open_prior_source(settings: Settings, ledger: Ledger, archive: Archive) -> StudySource | None:
    """Create the source of priors that the settings name, if any; nothing is connected yet."""
    return open_source(settings.priors, settings, ledger, archive) if settings.priors.asks else None


@dataclass(frozen=True)
class ChosenPriors:
    """A study to fetch, and its series."""

    study: FoundStudy
    wanted: WantedSeries


@dataclass
class Fetcher:
    """Processes requests until it is stopped.

    Parameters
    ----------
    source : StudySource
        The PACS.
    """

    settings: Settings
    ledger: Ledger
    source: StudySource
    _threads: WorkThreads = field(init=False)

    def __post_init__(self) -> None:
        self._threads = WorkThreads(self.settings.queue.grace_s, self._say_failing)

    @staticmethod
    def _say_failing(_name: str, why: str) -> None:
        _log.error("priors cannot be fetched now; the node will try again", why=why)

    def works(self) -> bool:
        """Whether every thread runs, and none has worked on one request for longer than that may take."""
        return self._threads.works()

    def __enter__(self) -> Self:
        owner = f"priors@{socket.gethostname()}-{secrets.token_hex(3)}"
        limit_s = self.settings.priors.fetch_s * (self.settings.priors.max_studies + 1)
        for number in range(AT_A_TIME):
            self._threads.start(f"priors-{number}", partial(self.work, f"{owner}/{number}"), limit_s)
        _log.info("ready to fetch priors", source=self.source.address)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.stop()

    def work(self, owner: str) -> bool:
        """Process the most urgent request that is due; false if there is none."""
        lease_s = self.settings.queue.lease_s
        request = self.ledger.claim_prior_request(owner, lease_s)
        if request is None:
            return False
        uid = request.study_instance_uid
        with Heartbeat(lambda: self.ledger.prolong_prior_request(uid, owner, lease_s), lease_s) as heartbeat:

            def stopped() -> str:
                return "the node stops" if self._threads.stopping else "another process took it over" * heartbeat.lost

            try:
                state, why = _Attempt(self.settings, self.ledger, self.source, request, owner, stopped).run()
            except SourceError as error:
                self._put_off(request, owner, error)
            except Exception as error:
                _log.exception("a request for priors failed", study=uid)
                self._put_off(request, owner, SourceError(explain(error)))
            else:
                _log.info("priors", study=uid, state=state.value, why=why)
                self.ledger.finish_prior_request(uid, owner, state, why)
        return True

    def _put_off(self, request: PriorRequest, owner: str, error: SourceError) -> None:
        uid, why = request.study_instance_uid, str(error)
        if self._threads.stopping:
            self.ledger.put_off_prior_request(uid, owner, "the node stops", datetime.now(UTC), counted=False)
            return
        again = not error.lasting and request.attempts < self.settings.priors.attempts
        _log.warning("priors could not be fetched", study=uid, why=why, attempt=request.attempts, again=again)
        pause = timedelta(seconds=pause_s(request.attempts, self.settings.queue, 1.0))
        self.ledger.put_off_prior_request(uid, owner, why, datetime.now(UTC) + pause if again else None)


@dataclass(frozen=True)
class _Attempt:
    """One attempt at one request."""

    settings: Settings
    ledger: Ledger
    source: StudySource
    request: PriorRequest
    owner: str
    stopped: object

    def run(self) -> tuple[PriorState, str]:
        """Process the request; return the state it ends in, and why."""
        study = self.ledger.study(self.request.study_instance_uid)
        days = window(study, self.settings.priors.max_age_days, self.settings.change.min_days)
        if isinstance(days, str):
            return PriorState.NONE, f"not queried: {days}"
        listed = shortlist(study, self.source.studies(StudyQuery(days.first, days.last, study.patient_id)), days)
        if not listed.studies:
            return PriorState.NONE, listed.why_empty
        here, chosen, refused = self._choose(study, listed.studies[:LOOKED_AT])
        fetched = [self._fetch(study, one) for one in chosen]
        words = [*fetched, *([f"the study of {in_words(here.study_date)} is already in the node"] if here else [])]
        if words:
            return PriorState.FETCHED, "; ".join(words)
        return PriorState.NONE, "no prior to compare with: " + "; ".join(refused)

    def _choose(
        self, study: StudyRecord, studies: Sequence[FoundStudy]
    ) -> tuple[EarlierStudy | None, list[ChosenPriors], list[str]]:
        """Choose the studies to fetch: those later than one that the node has; named SWI before others."""
        limits = self.settings.priors
        known = {one.study_instance_uid: one for one in self.ledger.earlier_studies(study.study_instance_uid)}
        unfinished = self._unfinished()
        named: list[ChosenPriors] = []
        others: list[ChosenPriors] = []
        refused: list[str] = []
        for one in studies:
            uid, day = one.study_instance_uid, in_words(one.study_date)
            if uid in known and uid not in unfinished:
                if known[uid].analysed or not known[uid].settled:
                    return known[uid], named[: limits.max_studies], refused
                refused.append(f"that of {day} is not analysed ({known[uid].why})")
                continue
            wanted = wanted_series(self.source.series(uid), limits.max_instances, recognition(self.settings))
            if wanted.why:
                refused.append(f"that of {day}: {wanted.why}")
            else:
                (named if wanted.named_swi else others).append(ChosenPriors(one, wanted))
            if len(named) == limits.max_studies:
                break
        return None, (named or others)[: limits.max_studies], refused

    def _unfinished(self) -> set[str]:
        """Studies that an earlier attempt may have fetched in part."""
        fetches = self.ledger.prior_fetches(self.request.study_instance_uid)
        return {one.prior_study_uid for one in fetches if one.state is not PriorState.FETCHED}

    def _fetch(self, study: StudyRecord, chosen: ChosenPriors) -> str:
        """Fetch one study; describe what was fetched."""
        uid, day = chosen.study.study_instance_uid, in_words(chosen.study.study_date)
        present = study.study_instance_uid
        if not self.ledger.begin_prior(present, self.owner, uid, chosen.study.study_date, chosen.wanted.instances):
            raise SourceError("another process took it over")
        limits = self.settings.priors
        bounds = TransferLimits(time.monotonic() + limits.fetch_s, self._stopped, limits.max_instances)
        try:
            counts = self.source.fetch(uid, chosen.wanted.series_uids, bounds)
            self._check(study, uid, counts)
        except SourceError as error:
            self.ledger.end_prior(present, self.owner, uid, PriorState.FAILED, str(error), error.counts)
            raise
        self.ledger.end_prior(present, self.owner, uid, PriorState.FETCHED, "", counts)
        return f"the study of {day} was fetched ({counts.completed + counts.warnings} images)"

    def _stopped(self) -> str:
        return str(self.stopped() if callable(self.stopped) else "")

    def _check(self, study: StudyRecord, prior_uid: str, counts: TransferCounts) -> None:
        """Check that images came, and that they are of this patient by their own headers."""
        try:
            came = self.ledger.study(prior_uid)
        except InputError:
            what = f"{self.source.address} reports {counts.completed} images sent, but none arrived"
            raise SourceError(f"{what}; is this node registered there with the right address?", lasting=True) from None
        if why := identifier_contradiction(study, came):
            raise SourceError(f"the images received are of another patient: {why}", lasting=True, counts=counts)

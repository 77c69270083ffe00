"""Which studies would be fetched from a PACS now? For a person who sets it up; nothing is fetched or recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from node.archive import Archive
from node.ledger import Ledger
from node.retrieve import open_source
from node.settings import Settings

from .search import new_studies
from .study_choice import choose_series


@dataclass(frozen=True)
class TriedStudy:
    """A study, and whether it would be fetched or ignored."""

    study_instance_uid: str
    study_date: str
    images: int | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class TriedPull:
    """What a query returned now; `looks` are those that were looked at."""

    found: int
    note: str
    looks: tuple[TriedStudy, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        return asdict(self)


def try_pull(settings: Settings, name: str, limit: int) -> TriedPull:
    """Query a PACS, and look at the series of the first studies.

    Raises
    ------
    SourceError
        If the PACS does not answer.
    """
    ledger = Ledger(settings.ledger_url)
    try:
        source = open_source(settings.pull[name], settings, ledger, Archive(settings.data_dir))
        found = new_studies(source, settings.pull[name], datetime.now(settings.zone).date())
        looks = []
        for study in found.studies[:limit]:
            look = choose_series(settings, name, source.series(study.study_instance_uid))
            verdict = "ignored" if look.why else "fetched"
            looks.append(
                TriedStudy(study.study_instance_uid, study.study_date, look.wanted.instances or None, verdict, look.why)
            )
    finally:
        ledger.close()
    return TriedPull(len(found.studies), found.note, tuple(looks))

"""Is a study to be fetched, and which of its series? Judged by their names, as a query returns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.retrieve.head_series import WantedSeries, wanted_series
from node.retrieve.source import FoundSeries
from node.settings import Settings
from node.settings.recognition import recognition


@dataclass(frozen=True)
class Look:
    """The series of a study to fetch, or why it is not fetched.

    Parameters
    ----------
    images : int or None
        Images of all its series; ``None`` if the PACS does not count them.
    """

    wanted: WantedSeries
    why: str
    images: int | None


def choose_series(settings: Settings, name: str, series: Sequence[FoundSeries]) -> Look:
    """Choose the series of a study: all with MR images, if one has the name of an SWI."""
    pacs = settings.pull[name]
    wanted = wanted_series(
        series, pacs.max_instances, recognition(settings), table=f"pull.{name}", pattern=pacs.series_description
    )
    why = wanted.why or ("" if wanted.named_swi else "no series has the name of an SWI")
    numbers = [one.instances for one in series]
    images = None if not numbers or None in numbers else sum(number or 0 for number in numbers)
    return Look(wanted, why, images)

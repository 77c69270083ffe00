"""Which series of a study in the PACS are fetched? All with MR images, if one of them may be an SWI of the head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.read.headers import Facts
from pipeline.read.recognition import RecognitionRules

from .source import FoundSeries

MR = "MR"
_HEAD = re.compile(r"head|brain|skull|cran|neuro|sch[aä]del|kopf|hirn|whole ?body|t[eê]te|cerv", re.IGNORECASE)


@dataclass(frozen=True)
class WantedSeries:
    """The series of a study to fetch; if there are none, `why` says why."""

    series_uids: tuple[str, ...]
    instances: int = 0
    named_swi: bool = False
    why: str = ""


def wanted_series(
    series: Sequence[FoundSeries],
    max_instances: int,
    rules: RecognitionRules,
    *,
    table: str = "priors",
    pattern: str | None = None,
) -> WantedSeries:
    """Choose the series of a study: all with MR images, if it may hold an SWI of the head and is not too large.

    Parameters
    ----------
    table : str
        The settings that set `max_instances`.
    pattern : str, optional
        A regular expression for the name of an SWI, instead of the recognition rule.
    """
    images = [one for one in series if one.series_instance_uid and one.modality in ("", MR)]
    if not images:
        return WantedSeries((), why="it has no MR images")
    named = any(_is_named_swi(one, rules, pattern) for one in images)
    parts = {one.body_part for one in images if one.body_part}
    if not named and parts and not any(_HEAD.search(part) for part in parts):
        return WantedSeries((), why=f"it shows {', '.join(sorted(parts)).lower()}, not the head")
    total = sum(one.instances or 0 for one in images)
    if total > max_instances:
        return WantedSeries((), total, named, f"it has {total} MR images, more than {table}.max_instances")
    return WantedSeries(tuple(one.series_instance_uid for one in images), total, named)


def _is_named_swi(series: FoundSeries, rules: RecognitionRules, pattern: str | None) -> bool:
    """Whether the name of a series is that of an SWI: by the pattern, or else by the recognition rules."""
    names = tuple(filter(None, (series.description, series.protocol)))
    if pattern is not None:
        return any(re.search(pattern, name, re.IGNORECASE) for name in names)
    return rules.define["swi-name"].holds(Facts((("text", names),)), rules.define)

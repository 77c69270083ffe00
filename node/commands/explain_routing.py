"""What would the node do with the studies of a folder, and why?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import dcmread

from node.route.routing import Plan, SeriesPlan, plan
from node.route.rules import SeriesOrigin, load_table
from node.settings import Settings
from node.settings.recognition import recognition
from pipeline.errors import InputError
from pipeline.read.study import Series, Study, find_files, read_studies

Json = dict[str, Any]
_ORIGIN = ["Manufacturer", "StudyDescription", "StationName", "InstitutionName"]


def explain(folder: Path, settings: Settings) -> Json:
    """Route the studies of a folder as received studies are routed, and say why; nothing is analysed.

    With several studies the series chosen are only in the entries of `studies`, not in `pick`.

    Raises
    ------
    InputError
        There is no such folder, or no DICOM image in it.
    """
    studies, unreadable = read_studies(find_files(folder), recognition(settings))
    if not studies:
        why = f": {unreadable[0].path.name} {unreadable[0].why}" if unreadable else ""
        raise InputError(f"no DICOM images in it{why}", where=str(folder))
    table = load_table(settings)
    plans = [plan(study, _origins(study), table, settings) for study in studies]
    picks = [_pick(made) for made in plans]
    return {
        "series": [_series(one) for made in plans for one in made.series],
        "pick": picks[0] if len(picks) == 1 else dict.fromkeys(("swi", "phase", "magnitude")),
        "studies": [
            {"study_instance_uid": study.study_instance_uid, "pick": chosen, **_outcome(made)}
            for study, chosen, made in zip(studies, picks, plans, strict=True)
        ],
        "unreadable": [{"path": str(file.path), "why": file.why} for file in unreadable],
    }


def _origins(study: Study) -> dict[str, SeriesOrigin]:
    """Origin of each series by its header; the calling AE title is unknown."""
    return {series.series_instance_uid: _origin(series) for series in study.series}


def _origin(series: Series) -> SeriesOrigin:
    header = dcmread(series.instances[0].path, stop_before_pixels=True, specific_tags=_ORIGIN)
    manufacturer, study_description, station, institution = (str(header.get(name) or "") for name in _ORIGIN)
    return SeriesOrigin(manufacturer, study_description, station, institution)


def _series(planned: SeriesPlan) -> Json:
    series = planned.series
    return {
        "series_instance_uid": series.series_instance_uid,
        "study_instance_uid": series.study_instance_uid,
        "series_number": series.series_number,
        "description": series.description,
        "instances": len(series.instances),
        "role": series.role.value,
        "rule": series.rule,
        "needs_confirmation": series.needs_confirmation,
        "action": planned.action.value,
        "why": planned.why,
    }


def _pick(made: Plan) -> Json:
    chosen = {"swi": made.selection.swi, "phase": made.selection.phase, "magnitude": made.selection.magnitude}
    return {name: None if series is None else series.series_instance_uid for name, series in chosen.items()}


def _outcome(made: Plan) -> Json:
    if made.profile is None:
        return {"profile": None, "priority": None, "destinations": [], "would": f"not analysed: {made.why}"}
    priority = made.priority.name.lower()
    to = ", ".join(made.destinations) or "nowhere: no destination is set"
    would = f"analysed with profile {made.profile}, priority {priority}, results to {to}: {made.why}"
    return {
        "profile": made.profile,
        "priority": priority,
        "destinations": list(made.destinations),
        "would": would,
    }

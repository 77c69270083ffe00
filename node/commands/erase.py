"""`cmbnode erase`: remove all that the node holds of a patient or a study."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import print_json, say

if TYPE_CHECKING:
    from node.run.erasing import ErasedStudy, QuarantineOfPatient

_LEFT = "Backups, log collectors and the systems that results were sent to keep what they have."


def erase(
    patient: Annotated[
        str, typer.Option("--patient", metavar="ID", help="Every study and quarantined object with this Patient ID.")
    ] = "",
    study: Annotated[str, typer.Option("--study", metavar="STUDY_UID", help="This study.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Erase a patient or a study: images, results, findings, names and history. The audit records that it was done."""
    from node.archive import Archive
    from node.run.erasing import QuarantineOfPatient, erase_quarantined, erase_study, find_quarantined
    from pipeline.errors import InputError

    if bool(patient) == bool(study):
        raise InputError("name either --patient or --study")
    settings = settings_of(data, config)
    archive, by = Archive(settings.data_dir), actor()
    with open_ledger(settings) as ledger:
        uids = [study] if study else ledger.studies_of_patient(patient)
        quarantined = find_quarantined(ledger, archive, patient) if patient else QuarantineOfPatient((), 0)
        if not uids and not quarantined.paths:
            raise InputError(f"no study and no object in quarantine has this Patient ID{_unknown(quarantined)}")
        if not yes:
            what = " and ".join(
                filter(None, (_number(len(uids), "study"), _number(len(quarantined.paths), "quarantined object")))
            )
            typer.confirm(f"Erase {what} for good: images, results and findings?", abort=True, err=True)
        if quarantined.paths:
            erase_quarantined(ledger, archive, quarantined.paths, patient, by)
        erased, refused = [], []
        for uid in uids:
            try:
                erased.append(erase_study(ledger, archive, uid, by))
            except InputError as error:
                refused.append(str(error))
    if json:
        quarantine = {"objects": len(quarantined.paths), "unreadable": quarantined.unreadable}
        print_json({"erased": [asdict(one) for one in erased], "quarantine": quarantine, "refused": refused})
    else:
        for one in erased:
            print(_summary(one))
        if quarantined.paths:
            print(f"{_number(len(quarantined.paths), 'quarantined object')} removed")
        if erased or quarantined.paths:
            say(f"{_LEFT}{_unknown(quarantined)}")
    if refused:
        raise InputError("; ".join(refused))


def _number(number: int, what: str) -> str:
    """``1 study``, ``2 studies``; empty for none."""
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number} {what if number == 1 else plural}" if number else ""


def _unknown(quarantined: QuarantineOfPatient) -> str:
    if not quarantined.unreadable:
        return ""
    return (
        f" {_number(quarantined.unreadable, 'object')} in quarantine cannot be read, so it is not known whose they are;"
        " they are deleted after archive.keep_quarantine_days."
    )


def _summary(one: ErasedStudy) -> str:
    rows = ", ".join(f"{number} {name}" for name, number in one.rows.items() if number)
    line = f"study {one.study_instance_uid}: {one.files} files and these rows removed: {rows or 'none'}"
    if not one.delivered_to:
        return line
    return f"{line}\n  its results were sent to {', '.join(one.delivered_to)}, and stay there"

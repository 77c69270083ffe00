"""`cmbnode correct`: a reader's correction from the command line, for sites that have a reading place of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.commands.jobs import JobArgument
from node.commands.options import ConfigOption, DataOption, actor, open_ledger, settings_of
from pipeline.errors import InputError

if TYPE_CHECKING:
    from node.ledger import AddedBleed, Correction, Ledger


def correct(
    job: JobArgument,
    observer: Annotated[str, typer.Option("--observer", help="Who has read it: Family^Given, or a name.")],
    organisation: Annotated[str, typer.Option("--organisation", help="For which organisation.")],
    reject: Annotated[str, typer.Option("--reject", help="Numbers of bleeds that are none: 2,5.")] = "",
    accept: Annotated[str, typer.Option("--accept", help="Numbers of bleeds rejected earlier that are some.")] = "",
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="X,Y,Z", help="A bleed that was missed, in LPS mm; add `,possible` if unsure."),
    ] = None,
    comment: Annotated[str, typer.Option("--comment", help="For the report.")] = "",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Correct a result, or confirm it as it is. The running node sends a verified report in its place."""
    from node.archive import Archive
    from node.correcting import open_correction
    from node.ledger import Correction
    from node.rules import recognition

    settings = settings_of(data, config)
    ledger = open_ledger(settings)
    try:
        ledger.upgrade()
        correction = Correction(
            observer, organisation, added=tuple(_bleed(text) for text in add or ()), comment=comment
        )
        correction = _judged(ledger, job, correction, _numbers("--reject", reject), _numbers("--accept", accept))
        archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
        opened = open_correction(ledger, archive, job, correction, actor(), recognition(settings))
    finally:
        ledger.close()
    print(f"job {opened.id} corrects job {job}; the running node does it")


def _judged(ledger: Ledger, job: int, correction: Correction, reject: list[int], accept: list[int]) -> Correction:
    """Put verdicts on bleeds that are named by their numbers."""
    from dataclasses import replace

    from node.ledger import Verdict

    document = ledger.findings(ledger.job(job).id) or {}
    known = {
        lesion["id"]: lesion["tracking_uid"] for name in ("lesions", "rejected") for lesion in document.get(name, ())
    }
    missing = [number for number in (*reject, *accept) if number not in known]
    if document and missing:
        there = ", ".join(map(str, sorted(known))) or "none"
        raise InputError(f"it has no microbleed {missing[0]}", where=f"job {job}", do=f"its numbers are {there}")
    verdicts = [
        Verdict(known[n], says) for says, numbers in ((False, reject), (True, accept)) for n in numbers if known
    ]
    return replace(correction, verdicts=tuple(verdicts))


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(
            f"{option} {text!r} is no list of numbers", do="give numbers with commas between: 2,5"
        ) from None


def _bleed(text: str) -> AddedBleed:
    from node.ledger import AddedBleed

    *numbers, last = (word.strip() for word in text.split(","))
    try:
        if last in ("definite", "possible"):
            x, y, z = map(float, numbers)
            return AddedBleed((x, y, z), "possible" if last == "possible" else "definite")
        x, y, z = map(float, (*numbers, last))
        return AddedBleed((x, y, z))
    except ValueError:
        raise InputError(f"--add {text!r} is no place", do="give x,y,z in patient coordinates (LPS), mm") from None

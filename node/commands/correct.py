"""`cmbnode correct`: a correction from the command line, for sites that read elsewhere than on the worklist page."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from pipeline.errors import InputError

from .jobs import JobArgument
from .options import ConfigOption, DataOption, actor, open_ledger, settings_of

if TYPE_CHECKING:
    from node.ledger import AddedMicrobleed, Correction, Ledger

CERTAINTIES: Final[tuple[Literal["definite", "possible"], ...]] = ("definite", "possible")
_TITLES = {"dr", "prof", "med", "md", "phd", "mr", "mrs", "ms"}


def correct(
    job: JobArgument,
    observer: Annotated[
        str,
        typer.Option(
            "--observer",
            help="Who verifies the result: Family^Given or a name.",
        ),
    ],
    organisation: Annotated[str, typer.Option("--organisation", help="The observer's organisation.")],
    reject: Annotated[str, typer.Option("--reject", metavar="N,N", help="Finding numbers to reject: 2,5.")] = "",
    accept: Annotated[
        str, typer.Option("--accept", metavar="N,N", help="Numbers of rejected findings to accept again.")
    ] = "",
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add", metavar="X,Y,Z", help="Centre of a missed microbleed (LPS, mm); append `,possible` if uncertain."
        ),
    ] = None,
    definite: Annotated[
        str, typer.Option("--definite", metavar="N,N", help="Finding numbers to set to definite: 3,4.")
    ] = "",
    possible: Annotated[
        str, typer.Option("--possible", metavar="N,N", help="Finding numbers to set to possible: 1.")
    ] = "",
    comment: Annotated[str, typer.Option("--comment", help="Comment for the report.")] = "",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Correct or confirm a result. The running node sends a verified report that replaces it.

    The report names the user of the operating system who entered the correction. A user of the worklist cannot be the
    observer: that user verifies results by signing in.
    """
    from node.analyse.correction import open_correction
    from node.archive import Archive
    from node.ledger import Correction
    from node.ledger.access_records import AuditAction
    from node.settings.recognition import recognition

    settings = settings_of(data, config)
    with open_ledger(settings) as ledger:
        ledger.upgrade()
        _require_no_account(ledger, observer)
        correction = Correction(
            observer,
            organisation,
            added=tuple(_microbleed(text) for text in add or ()),
            comment=f"{comment} (entered on the command line by {actor()})".strip(),
        )
        said = {"reject": reject, "accept": accept, "definite": definite, "possible": possible}
        numbers = {option: _numbers(f"--{option}", text) for option, text in said.items()}
        correction = _with_verdicts(ledger, job, correction, numbers)
        archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
        opened = open_correction(ledger, archive, job, correction, actor(), recognition(settings))
        detail = f"job {opened.id}: {correction.summary}"
        ledger.record_access(actor(), AuditAction.CORRECTION, opened.study_instance_uid, detail)
    print(f"job {opened.id} corrects job {job}; the running node will write the verified result")


def _require_no_account(ledger: Ledger, observer: str) -> None:
    """Refuse the name of a user who can sign in: only that user, signed in, may verify under it.

    Names match if all words of one are words of the other, in any order: ``Hopper^Grace`` is ``Dr. Grace Hopper``.
    """
    words = _words(observer)
    for account in ledger.accounts():
        for name in (account.name, account.display_name):
            other = _words(name)
            if words and (words <= other or (len(other) > 1 and other <= words)):
                raise InputError(
                    f"the observer is the user {account.name}, who verifies results by signing in to the worklist",
                    where=f"--observer {observer!r}",
                )


def _words(name: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(c if c.isalnum() else " " for c in plain if not unicodedata.combining(c))
    return {word for word in letters.split() if word not in _TITLES}


def _with_verdicts(
    ledger: Ledger, job: int, correction: Correction, numbers: Mapping[str, Sequence[int]]
) -> Correction:
    """Add what is said of the findings with these numbers, by option."""
    from dataclasses import replace

    from node.ledger import CertaintyVerdict, LesionVerdict

    document = ledger.findings(ledger.job(job).id)
    if document is None:
        return correction  # which is refused, with the reason
    known = {
        lesion["id"]: lesion["tracking_uid"] for name in ("lesions", "rejected") for lesion in document.get(name, ())
    }
    for number in chain.from_iterable(numbers.values()):
        if number not in known:
            there = ", ".join(map(str, sorted(known))) or "none"
            raise InputError(f"it has no microbleed {number}", where=f"job {job}", do=f"its numbers are {there}")
    return replace(
        correction,
        verdicts=tuple(
            LesionVerdict(known[n], accepted)
            for accepted, how in ((False, "reject"), (True, "accept"))
            for n in numbers[how]
        ),
        certainties=tuple(
            CertaintyVerdict(known[n], certainty) for certainty in CERTAINTIES for n in numbers[certainty]
        ),
    )


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(
            f"{option} {text!r} is not a list of numbers", do="separate the numbers with commas: 2,5"
        ) from None


def _microbleed(text: str) -> AddedMicrobleed:
    from node.ledger import AddedMicrobleed

    *numbers, last = (word.strip() for word in text.split(","))
    try:
        if last in ("definite", "possible"):
            x, y, z = map(float, numbers)
            return AddedMicrobleed((x, y, z), "possible" if last == "possible" else "definite")
        x, y, z = map(float, (*numbers, last))
        return AddedMicrobleed((x, y, z))
    except ValueError:
        raise InputError(f"--add {text!r} is not a place", do="give x,y,z in patient coordinates (LPS), mm") from None

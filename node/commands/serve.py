"""`cmbnode up` and the parts one by one: `receiver`, `worker`, `worklist`, `sweep`."""

from __future__ import annotations

import atexit
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption, DataOption, settings_of

if TYPE_CHECKING:
    from node.settings import Settings


class QueueChoice(StrEnum):
    """The two queues a worker can serve."""

    ANALYSE = "analyse"
    DELIVER = "deliver"


def up(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the node with all its services. Ctrl-C or SIGTERM stops it."""
    settings = _prepare(data, config)
    from node.run.supervisor import run_up

    run_up(settings)


def receiver(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the DICOM receiver."""
    settings = _prepare(data, config, part="receiver")
    from node.receive.receiver import run_receiver

    run_receiver(settings)


def worker(
    queue: Annotated[QueueChoice, typer.Option("--queue", help="The worker's queue.")] = QueueChoice.ANALYSE,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Run only one worker, which analyses studies or delivers results."""
    settings = _prepare(data, config, part=f"worker-{queue}")
    from node.run.workers import run_worker

    run_worker(settings, queue.value)


def sweep(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the sweep. It closes complete series, creates jobs, and queues lost messages again."""
    settings = _prepare(data, config, part="sweep")
    from node.run.sweep import run_sweep

    run_sweep(settings)


def worklist(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the worklist page."""
    settings = _prepare(data, config, part="worklist")
    from node.web import run_worklist

    run_worklist(settings)


def _prepare(data: Path | None, config: Path | None, part: str = "") -> Settings:
    """Read the settings, see that only this user can read the data folder, and have the part say that it works.

    `up`, which is no part itself, looks at every file of the data folder.
    """
    settings = settings_of(data, config)
    import structlog

    from node.logs import set_up_logging
    from node.processes import alive
    from node.processes.parts import PartFile
    from node.processes.private import secure_data_folder

    set_up_logging(settings)
    if repaired := secure_data_folder(settings.data_dir, deep=not part):
        log, folder = structlog.get_logger(__name__), str(settings.data_dir)
        log.warning("removed other users' permissions in the data folder", folder=folder, entries=repaired)
    if part:
        file = PartFile(settings.data_dir, part)
        alive.ALSO.append(file.beat)
        atexit.register(file.remove)
    return settings

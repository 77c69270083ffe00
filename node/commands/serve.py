"""`cmbnode up` and the parts one by one: `receiver`, `worker`, `worklist`, `sweep`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def up(context: typer.Context, data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the node with all its services. Ctrl-C or SIGTERM stops it."""
    settings = _prepare(data, config)
    from node.run.supervisor import run_up

    run_up(settings, context.obj["main"])


def receiver(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the DICOM receiver."""
    with _part("receiver", data, config) as settings:
        from node.receive.receiver import run_receiver

        run_receiver(settings)


def worker(
    queue: Annotated[QueueChoice, typer.Option("--queue", help="The worker's queue.")] = QueueChoice.ANALYSE,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Run only one worker, which analyses studies or delivers results."""
    with _part(f"worker-{queue}", data, config) as settings:
        from node.run.workers import run_worker

        run_worker(settings, queue.value)


def sweep(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the sweep. It closes complete series, creates jobs, and queues lost messages again."""
    with _part("sweep", data, config) as settings:
        from node.run.sweep import run_sweep

        run_sweep(settings)


def worklist(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run only the worklist page."""
    with _part("worklist", data, config) as settings:
        from node.web import run_worklist

        run_worklist(settings)


@contextmanager
def _part(name: str, data: Path | None, config: Path | None) -> Iterator[Settings]:
    """Settings for a part of the node, which says in the data folder that it works until the block ends."""
    settings = _prepare(data, config, deep=False)
    from node.processes import alive
    from node.processes.parts import PartFile

    file = PartFile(settings.data_dir, name)
    alive.ALSO.append(file.beat)
    try:
        yield settings
    finally:
        file.remove()


def _prepare(data: Path | None, config: Path | None, *, deep: bool = True) -> Settings:
    """Read the settings, and see that only this user can read the data folder, or every file of it if `deep`."""
    settings = settings_of(data, config)
    import structlog

    from node.logs import set_up_logging
    from node.processes.file_modes import secure_data_folder

    set_up_logging(settings)
    if repaired := secure_data_folder(settings.data_dir, deep=deep):
        log, folder = structlog.get_logger(__name__), str(settings.data_dir)
        log.warning("removed other users' permissions in the data folder", folder=folder, entries=repaired)
    return settings

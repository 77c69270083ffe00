"""`cmbnode up` and the parts one by one: `receiver`, `worker`, `worklist`, `sweep`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from node.commands.options import ConfigOption, DataOption, settings_of


class Queue(StrEnum):
    """The two queues a worker can serve."""

    ANALYSE = "analyse"
    DELIVER = "deliver"


def up(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the whole node. Redis, receiver, workers, sweep and worklist; Ctrl-C or SIGTERM stops it."""
    settings = settings_of(data, config)
    from node.supervisor import run_up

    run_up(settings)


def receiver(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the DICOM receiver alone."""
    settings = settings_of(data, config)
    from node.receiver import run_receiver

    run_receiver(settings)


def worker(
    queue: Annotated[Queue, typer.Option("--queue", help="Which work to take.")] = Queue.ANALYSE,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Run one worker alone. It analyses studies, or delivers results."""
    settings = settings_of(data, config)
    from node.tasks import run_worker

    run_worker(settings, queue.value)


def sweep(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the sweep alone. It settles series, opens jobs and rings again for whatever was lost."""
    settings = settings_of(data, config)
    from node.sweep import run_sweep

    run_sweep(settings)


def worklist(data: DataOption = None, config: ConfigOption = None) -> None:
    """Run the worklist page alone."""
    settings = settings_of(data, config)
    from node.worklist import run_worklist

    run_worklist(settings)

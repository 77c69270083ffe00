"""A worker whose analyses only wait: ``python -m tests.node.slow_worker SETTINGS.json QUEUE SECONDS [deaf|fragile]``.

Everything but the pipeline is the product's. A fragile one aborts, as native code can, whenever it analyses the first
job. A deaf one stops fetching messages once it is up, as Celery has been seen
to do after Redis was away, and is to notice that within a second.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from celery import signals

from node.ledger import Job
from node.logs import set_up_logging
from node.run import workers
from node.run.workers import Worker
from node.settings import Settings
from pipeline.results import ResultObject

from .jobs import capture, findings_of


class SlowWorker(Worker):
    """Waits instead of analysing."""

    seconds = 0.0

    def _run(self, job: Job, paths: list[Path], progress: Any) -> Any:
        if "fragile" in sys.argv and job.id == 1:
            os.abort()
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            time.sleep(0.02)
        return findings_of(job), (ResultObject("capture", capture(job)),)


if __name__ == "__main__":
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    set_up_logging(settings)
    worker = SlowWorker(settings, sys.argv[2])
    worker.seconds = float(sys.argv[3])
    if "deaf" in sys.argv:
        workers.STALL_S = workers.WATCH_S = 0.3
        signals.worker_ready.connect(lambda sender, **_: sender.task_consumer.cancel(), weak=False)
    sys.exit(worker.run())

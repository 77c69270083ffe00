"""How is a worker told that there is work? Celery messages on Redis, with ids only; losing one loses nothing."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import ChannelError, OperationalError

from .ledger import Priority
from .settings import ConfigError, Settings

ANALYSE, DELIVER = "analyse", "deliver"
REPORT = "report"
"""A task of the queue :data:`DELIVER`."""
VISIBILITY_S = 86_400
"""Messages are acknowledged before the work starts, so this only bounds when an unacknowledged one returns."""

QueueAwayError = OperationalError
"""Redis cannot be reached."""


def make_app(settings: Settings) -> Celery:
    """Make the Celery application; it holds no state, knows no task yet, and connects to nothing.

    Raises
    ------
    ConfigError
        If no Redis is named.
    """
    if settings.broker_url is None:
        raise ConfigError(
            "no Redis is named", where="redis_url", do="set CMBNODE_REDIS_URL, or let `cmbnode up` start one"
        )
    app = Celery("cmbnode", broker=settings.broker_url, set_as_current=False)
    visibility: dict[str, Any] = {"visibility_timeout": VISIBILITY_S}
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,  # late acknowledgement on Redis loses a job that kills its worker, or loops for ever
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in (ANALYSE, DELIVER)],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # else a signal waits in a busy worker while another is idle
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        visibility_timeout=VISIBILITY_S,
        result_backend_transport_options=visibility,
        broker_transport_options={
            **visibility,
            "priority_steps": [int(step) for step in Priority],
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
    )
    return app


class JobQueue:
    """Signals that work waits. Every method raises `QueueAwayError` when Redis is away.

    A signal for an analysis names the job that caused it, for the log; the worker that receives it takes the most
    urgent job of the ledger. So what matters is that there are as many signals as jobs that wait.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def analyse(self, job_id: int, priority: Priority) -> None:
        """Signal that a job waits for its analysis."""
        self._send(ANALYSE, job_id, int(priority))

    def deliver(self, destination: str) -> None:
        """Signal that something waits for a destination."""
        self._send(DELIVER, destination, int(Priority.STAT))

    def report(self, calling_ae: str) -> None:
        """Signal that a report on storage commitment waits for an AE title."""
        self._send(REPORT, calling_ae, int(Priority.ROUTINE), queue=DELIVER)

    def _send(self, task: str, argument: int | str, priority: int, queue: str = "") -> None:
        self._app.send_task(task, args=[argument], queue=queue or task, priority=priority, retry=False)

    def depth(self, queue: str) -> int:
        """How many messages no worker has fetched yet."""
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except ChannelError:  # Redis forgets empty queues
                return 0

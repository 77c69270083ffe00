"""Which checks are made, and in which order?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from node.settings import Settings
from node.settings.secrets import SECRETS_DIR
from node.text import one_line

from . import machine, services, work_items
from .verdict import Checkup, Verdict, wrong

__all__ = ["Checkup", "Verdict", "examine"]

CHECKS: tuple[Callable[[Settings], Iterator[Checkup]], ...] = (
    machine.check_data_folder,
    machine.check_disk,
    machine.check_clock,
    machine.check_ports,
    machine.check_certificates,
    services.check_parts,
    services.check_redis,
    services.check_database,
    services.check_routing,
    machine.check_gpu,
    services.check_connections,
    services.check_notices,
    services.check_audit_repository,
    work_items.check_worklist_manager,
)


def examine(settings: Settings) -> Iterator[Checkup]:
    """Make every check; one that breaks down is reported, and the others are still made."""
    folder = os.environ.get(SECRETS_DIR)
    yield from services.check_secrets(Path(folder) if folder else None)
    for check in CHECKS:
        try:
            yield from check(settings)
        except Exception as error:
            subject = check.__name__.removeprefix("check_").replace("_", " ")
            yield wrong(subject, f"it could not be checked ({type(error).__name__}: {one_line(str(error))})")

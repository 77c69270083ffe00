"""Run campaigns and print what came of them: ``python -m tests.chaos --faults 200 --studies 60``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .campaign import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument(
        "--database", choices=("sqlite", "postgresql"), default=None, help="default: one after the other"
    )
    arguments = parser.parse_args()
    clean = True
    for database in (arguments.database,) if arguments.database else ("sqlite", "postgresql"):
        folder = Path(tempfile.mkdtemp(prefix=f"cmb-chaos-{database}-"))
        plan = Plan(arguments.seed, arguments.faults, arguments.studies, database, slow=True, calm_limit_s=600)
        outcome = run(plan, folder)
        print(f"{outcome.table()}\nlogs: {folder}\n", flush=True)
        clean = clean and outcome.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())

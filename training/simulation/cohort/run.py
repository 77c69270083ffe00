"""How is a whole cohort made? Head by head, within a memory budget, with progress, and on from where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.errors import CmbError, InputError
from training.folder_lock import alone_in
from training.simulation.anatomy import AnatomyRef, list_anatomies

from .plan import Cohort, Split
from .scan_settings import HeadTask, head_tasks
from .splits import assign_splits, disjoint
from .studies import MadeStudy, Output, make_head_studies

BYTES_PER_FINE_VOXEL = 75
"""Peak memory of one study per voxel of its fine grid, measured."""
BYTES_PER_IMAGE_VOXEL = 35
"""The same per voxel of the images that it gets, interpolation included."""
BASE_BYTES = 500 << 20


@dataclass(frozen=True)
class Budget:
    """What the machine may give.

    Parameters
    ----------
    processes : int
        Most at a time; 0 uses every core.
    memory_gb : float
        All of them together; 0 means three quarters of what is available.
    """

    processes: int = 1
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Options:
    """What to make of a cohort.

    Parameters
    ----------
    anatomy : Path, optional
        Folder of labelled heads; the ICBM152 template without it.
    scheme : str, optional
        Label scheme of the folder.
    sets : tuple of str
        Only these sets; all if empty.
    limit : int
        Most studies of each set; 0 makes all.
    skip : int
        As many studies at the start of each set are left out; they count towards the limit.
    """

    anatomy: Path | None = None
    scheme: str | None = None
    sets: tuple[str, ...] = ()
    limit: int = 0
    skip: int = 0


@dataclass(frozen=True)
class CohortSummary:
    """What was made."""

    studies: int
    new: int
    bleeds: int
    visible: int
    seconds: float
    size_bytes: int


def processes_for(tasks: Sequence[HeadTask], budget: Budget) -> int:
    """How many processes fit the budget.

    Raises
    ------
    InputError
        If not even one fits.
    """
    available = psutil.virtual_memory().available
    memory = budget.memory_gb * 1e9 if budget.memory_gb else 0.75 * available
    need = BASE_BYTES + max(_peak_bytes(t) for t in tasks)
    if memory < need:
        raise InputError(
            f"one study needs about {need / 1e9:.1f} GB, the budget is {memory / 1e9:.1f} GB",
            do="raise --memory-gb, or fine_mm in the cohort file",
        )
    cores = os.cpu_count() or 1
    return max(1, min(budget.processes or cores, int(memory // need), len(tasks)))


def _peak_bytes(task: HeadTask) -> int:
    """Of the largest study that the set can draw."""
    x, y, z = task.set.fov_mm
    ranges = task.set.protocol
    filled = max(ranges.zero_fill) ** 2 * max(ranges.slice_fill or (1.0,))
    fine, image = x * y * z / task.set.fine_mm**3, filled * max(x * y * z / (a * b * c) for a, b, c in ranges.voxel_mm)
    return int(BYTES_PER_FINE_VOXEL * fine + BYTES_PER_IMAGE_VOXEL * image)


def plan_tasks(
    cohorts: Iterable[Cohort], options: Options
) -> tuple[list[HeadTask], dict[Split, tuple[AnatomyRef, ...]]]:
    """Every head to be made, and how the anatomies were dealt out.

    Raises
    ------
    InputError
        If the anatomies cannot be used, a set is unknown, or no study is chosen.
    """
    splits = assign_splits(list_anatomies(options.anatomy, options.scheme))
    tasks: list[HeadTask] = []
    for cohort in cohorts:
        known = {s.name for s in cohort.sets}
        if options.sets and not known & set(options.sets):
            raise InputError(
                f"cohort {cohort.name!r} has no set {', '.join(options.sets)}",
                do=f"choose among {', '.join(sorted(known))}",
            )
        for one in cohort.sets:
            if options.sets and one.name not in options.sets:
                continue
            for task in head_tasks(cohort, one, splits[one.split]):
                kept = tuple(s for s in task.studies if options.skip <= s < (options.limit or one.studies))
                if kept:
                    tasks.append(HeadTask(cohort, task.set_name, task.index, task.anatomy, task.seed, kept))
    if not tasks:
        raise InputError("no study is left to make", do="lower --skip, or raise --limit")
    return tasks, splits


def _do(task: HeadTask, output: Output) -> list[MadeStudy]:
    return list(make_head_studies(task, output))


def end_with_parent() -> None:
    """End this process when the one that started it was killed. Studies are whole or not there, so nothing is lost."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_processes(tasks: Sequence[HeadTask], outputs: dict[str, Output], n: int) -> Iterator[MadeStudy]:
    """Results of all heads as they come; one process runs them here."""
    if n == 1:
        for task in tasks:
            yield from make_head_studies(task, outputs[task.cohort.name], workers=min(2, os.cpu_count() or 1))
        return
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n, mp_context=context, initializer=end_with_parent) as pool:
        running = [pool.submit(_do, task, outputs[task.cohort.name]) for task in tasks]
        try:
            for done in as_completed(running):
                yield from done.result()
        except BrokenProcessPool:
            raise CmbError(
                "a process died, probably because memory ran out", do="lower --processes and run again"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # else the command would go on for minutes after it said what failed
            raise


def _manifest(cohort: Cohort, splits: dict[Split, tuple[AnatomyRef, ...]], folder: Path) -> None:
    document = {
        "schema": "cmb-simulated-cohort/1",
        "cohort": cohort.model_dump(mode="json"),
        "sha256": cohort.digest,
        "anatomies": {split: [a.name for a in refs] for split, refs in splits.items()},
        "anatomies_disjoint": disjoint(splits),
    }
    temporary = folder / ".cohort.json.partial"
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(folder / "cohort.json")


def _follow(results: Iterator[MadeStudy], total: int, say: Callable[[str], None]) -> list[MadeStudy]:
    """Collect results with a bar on a terminal, plain lines elsewhere."""
    made: list[MadeStudy] = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    terminal = sys.stderr.isatty()
    with Progress(*columns, disable=not terminal) as bar:
        task = bar.add_task("studies", total=total)
        for one in results:
            made.append(one)
            bar.update(task, advance=1, description=one.name)
            if not terminal:
                what = "made" if one.new else "there already"
                say(f"{len(made)}/{total} {one.name}: {what}, {one.visible} of {one.bleeds} microbleeds visible")
    return made


def run_cohorts(
    cohorts: Sequence[Cohort],
    output: Output,
    options: Options,
    budget: Budget,
    say: Callable[[str], None] = print,
) -> CohortSummary:
    """Make every study of the cohorts that is not there yet, each cohort in a folder of its name.

    Raises
    ------
    InputError
        If anatomies, sets or the memory budget do not allow it, the disk is full, or another run works in the folder.
    """
    started = perf_counter()
    tasks, splits = plan_tasks(cohorts, options)
    n = processes_for(tasks, budget)
    if not disjoint(splits):
        say("fewer than three anatomies: training and test share them and differ in shape, veins and lesions only")
    outputs = {
        c.name: Output(output.folder / c.name, output.formats, output.compress, output.truth_objects) for c in cohorts
    }
    with ExitStack() as folders:
        for cohort in cohorts:
            folders.enter_context(alone_in(outputs[cohort.name].folder))
            _manifest(cohort, splits, outputs[cohort.name].folder)
        made = _follow(_in_processes(tasks, outputs, n), sum(len(t.studies) for t in tasks), say)
    size = sum(p.stat().st_size for o in outputs.values() for p in o.folder.rglob("*") if p.is_file())
    return CohortSummary(
        len(made),
        sum(m.new for m in made),
        sum(m.bleeds for m in made),
        sum(m.visible for m in made),
        perf_counter() - started,
        size,
    )

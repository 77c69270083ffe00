"""What do the figures look like? FROC, sensitivity by size, reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .groups import size_classes
from .summary import RATES, CohortMeasurement, EvaluationSummary
from .tables import SIMULATED

LEAST_FP = 0.05
"""Left end of the logarithmic axis of the FROC plot."""


def write_plots(folder: Path, measured: CohortMeasurement, summaries: Sequence[EvaluationSummary]) -> list[Path]:
    """Write ``froc.png``, ``sensitivity-by-size.png`` and ``calibration.png``."""
    draw: dict[str, Callable[[Axes, Sequence[EvaluationSummary]], None]] = {
        "froc": froc,
        "sensitivity-by-size": sensitivity_by_size,
        "calibration": reliability,
    }
    paths = []
    for name, one in draw.items():
        figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
        axes = figure.subplots()
        one(axes, summaries)
        axes.set_title(str(measured), fontsize=8)
        if measured.simulated:
            figure.supxlabel(SIMULATED, fontsize=7)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def froc(axes: Axes, summaries: Sequence[EvaluationSummary]) -> None:
    """Sensitivity against false positives per study, with the operating points and the intervals at the usual rates."""
    for n, summary in enumerate(summaries):
        colour = f"C{n}"
        false = [max(f, LEAST_FP) for f, _, _ in summary.curve]
        axes.step(false, [s for _, s, _ in summary.curve], where="post", color=colour, label=summary.profile)
        point, rate = summary.figures["sensitivity"].value, summary.figures["fp_per_study"].value
        if point is not None and rate is not None:
            axes.plot([max(rate, LEAST_FP)], [point], "o", color=colour)
        for at, estimate in summary.at_rates.items():
            if estimate.low is not None and estimate.high is not None:
                axes.plot([at * 1.02**n] * 2, [estimate.low, estimate.high], color=colour, alpha=0.5)
    axes.set_xscale("log")
    axes.set_xlim(left=LEAST_FP)
    axes.set_xticks([0.1, *RATES, 32, 128], ["0.1", *(f"{rate:g}" for rate in RATES), "32", "128"])
    axes.set(xlabel="False positives per study", ylabel="Sensitivity", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def sensitivity_by_size(axes: Axes, summaries: Sequence[EvaluationSummary]) -> None:
    """Sensitivity in each class of apparent diameter."""
    width = 0.8 / max(len(summaries), 1)
    counts: dict[str, int] = {}
    for n, summary in enumerate(summaries):
        groups = {group.name: group for group in summary.groups["size"]}
        counts |= {name: group.bleeds for name, group in groups.items()}
        for x, name in enumerate(size_classes()):
            if name not in groups or groups[name].sensitivity.value is None:
                continue
            estimate = groups[name].sensitivity
            at = x + (n - (len(summaries) - 1) / 2) * width
            axes.bar(at, estimate.value or 0.0, width, color=f"C{n}", label=summary.profile)
            if estimate.low is not None and estimate.high is not None:
                axes.plot([at, at], [estimate.low, estimate.high], color="black", linewidth=1)
    names = size_classes()
    axes.set_xticks(range(len(names)), [f"{name}\nn = {counts.get(name, 0)}" for name in names])
    axes.set(xlabel="Apparent diameter", ylabel="Sensitivity", ylim=(0, 1.02))
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), loc="upper left")


def reliability(axes: Axes, summaries: Sequence[EvaluationSummary]) -> None:
    """Share of microbleeds against probability, over all scored candidates."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for n, summary in enumerate(summaries):
        bins = summary.all_scores.bins
        error = "" if summary.all_scores.error is None else f", ECE {summary.all_scores.error:.3f}"
        axes.plot(
            [b.probability for b in bins], [b.bleeds for b in bins], "o-", color=f"C{n}", label=summary.profile + error
        )
    axes.set(xlabel="Probability", ylabel="Share that are microbleeds", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")

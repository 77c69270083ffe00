"""How are the figures read? Markdown tables, the profiles side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .bootstrap import Estimate
from .burden import NAMES
from .groups import FalseKind, Group
from .matching import MATCH_MM
from .rules import RATE, RuleSensitivity
from .summary import FEW_BLEEDS, FEW_SUBJECTS, RATES, CohortMeasurement, EvaluationSummary

Say = Callable[[Estimate], str]
SIMULATED = "Figures on simulated images; they are no claim of clinical sensitivity."


def percent(estimate: Estimate) -> str:
    """A share as ``93.6 (91.0–95.9)``, in per cent."""
    return _say(estimate, 100, 1)


def number(estimate: Estimate) -> str:
    """A figure as ``1.42 (1.10–1.80)``."""
    return _say(estimate, 1, 2)


def _say(estimate: Estimate, scale: float, digits: int) -> str:
    if estimate.value is None:
        return "–"
    value = f"{scale * estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({scale * estimate.low:.{digits}f}–{scale * estimate.high:.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [_row(head), _row(["---", *("---:" for _ in head[1:])]), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def report(title: str, measured: CohortMeasurement, summaries: Sequence[EvaluationSummary], command: str = "") -> str:
    """The whole page: what was measured, how, and every table."""
    parts = [f"# {title}", *preamble(measured, command), "## Detection", main_table(summaries)]
    parts += [f"## Sensitivity by rule, at {RATE:g} false positives per study (%)", rule_table(summaries)]
    for by in ("size", "region", "placement"):
        if any(summary.groups[by] for summary in summaries):
            parts += [f"## Sensitivity by {by} (%)", group_table(by, summaries)]
    parts += ["## What false positives lie on (per study)", false_table(summaries)]
    parts += ["## Burden", burden_table(summaries), "## Calibration", calibration_table(summaries)]
    parts += ["## Seconds per study", seconds_table(summaries), *_notes(summaries)]
    return "\n\n".join(parts) + "\n"


def preamble(measured: CohortMeasurement, command: str = "") -> list[str]:
    """What was measured on, and by which rules."""
    lines = [f"{str(measured)[0].upper()}{str(measured)[1:]}."]
    if measured.simulated:
        lines[0] += f" **{SIMULATED}**"
    if command:
        lines.append(f"```\n{command}\n```")
    lines.append(
        f"A mark finds a microbleed within {MATCH_MM:g} mm of its centre. The most probable mark chooses first; each "
        f"microbleed is found once; {'; '.join(measured.rules)}; marks on other microbleeds count neither as found nor "
        "as false. In brackets: 95 % intervals, bootstrap over subjects. In a refused study every microbleed is missed."
    )
    if 1 < measured.subjects < FEW_SUBJECTS:
        lines.append(
            f"Beware: {measured.subjects} subjects cannot be drawn in many ways, so the intervals are too narrow."
        )
    if measured.visible < FEW_BLEEDS:
        few = f"only {measured.visible} visible microbleeds: too few to tell one good detector from another"
        lines.append(f"Beware: {few} ({FEW_BLEEDS} are needed before a sensitivity of 95 % can be claimed).")
    return lines


def main_table(summaries: Sequence[EvaluationSummary]) -> str:
    """The figures everyone quotes, one profile a column."""
    rows: list[list[object]] = []
    say: dict[str, tuple[str, Say]] = {
        "sensitivity": ("Sensitivity, %", percent),
        "fp_per_study": ("False positives per study", number),
        "precision": ("Precision, %", percent),
        "f1": ("F1, %", percent),
        "candidate_sensitivity": ("Candidates: sensitivity, %", percent),
        "candidate_fp_per_study": ("Candidates: false per study", number),
    }
    for name, (label, how) in say.items():
        rows.append([label, *(how(summary.figures[name]) for summary in summaries)])
    at: list[list[object]] = [
        [f"Sensitivity at {rate:g} FP, %", *(percent(s.at_rates[rate]) for s in summaries)] for rate in RATES
    ]
    rows[4:4] = at
    rows.append(["Burden class, weighted kappa", *(number(s.burden.kappa) for s in summaries)])
    rows.append(["Refused studies", *(len(s.refused) for s in summaries)])
    rows.append(["Silent empty answers", *(len(s.silent) for s in summaries)])
    return table(["", *(s.profile for s in summaries)], rows)


def rule_table(summaries: Sequence[EvaluationSummary]) -> str:
    """Sensitivity by each rule, with the bootstrap's interval and Wilson's."""
    rules = [{rule.name: rule for rule in summary.rules} for summary in summaries]
    rows = [[name, rule.bleeds, *(_by_rule(of[name]) for of in rules)] for name, rule in rules[0].items()]
    return table(["", "n", *(s.profile for s in summaries)], rows)


def _by_rule(rule: RuleSensitivity) -> str:
    if rule.wilson is None:
        return percent(rule.sensitivity)
    low, high = (f"{100 * end:.1f}" for end in rule.wilson)
    return f"{percent(rule.sensitivity)}; Wilson {low}–{high}"


def group_table(by: str, summaries: Sequence[EvaluationSummary]) -> str:
    """Sensitivity of each group of microbleeds."""
    groups = [{group.name: group for group in summary.groups[by]} for summary in summaries]
    names = list(dict.fromkeys(name for of in groups for name in of))
    rows = [[name, groups[0][name].bleeds, *(_sensitivity(of.get(name)) for of in groups)] for name in names]
    return table([by, "n", *(s.profile for s in summaries)], rows)


def _sensitivity(group: Group | None) -> str:
    return "–" if group is None else percent(group.sensitivity)


def false_table(summaries: Sequence[EvaluationSummary]) -> str:
    """Per kind: how many such things show, and false positives per study of each profile."""
    kinds = [{kind.name: kind for kind in summary.false} for summary in summaries]
    names = list(dict.fromkeys(name for of in kinds for name in of))
    things = {name: next(of[name].things for of in kinds if name in of) for name in names}
    rows = [
        [name, "–" if things[name] is None else things[name], *(_false(of.get(name)) for of in kinds)] for name in names
    ]
    return table(["lies on", "shown", *(s.profile for s in summaries)], rows)


def _false(kind: FalseKind | None) -> str:
    return "0.00" if kind is None else number(kind.per_study)


def burden_table(summaries: Sequence[EvaluationSummary]) -> str:
    """True class by reported class, in studies."""
    rows = [
        [f"{summary.profile}: true {name}", *row]
        for summary in summaries
        for name, row in zip(NAMES, summary.burden.table, strict=True)
    ]
    return table(["microbleeds", *(f"reported {name}" for name in NAMES)], rows)


def calibration_table(summaries: Sequence[EvaluationSummary]) -> str:
    """Calibration errors; the scored candidates are nearly all far from any microbleed, so theirs is easily small."""
    rows = []
    for summary in summaries:
        for which, one in (("scored", summary.all_scores), ("reported", summary.reported_scores)):
            ece, brier = ("–" if v is None else f"{v:.3f}" for v in (one.error, one.brier))
            rows.append([f"{summary.profile}, {which}", one.marks, ece, brier])
    return table(["", "marks", "expected calibration error", "Brier score"], rows)


def seconds_table(summaries: Sequence[EvaluationSummary]) -> str:
    """Mean time of each stage, on the machine of the run."""
    stages = [*dict.fromkeys(stage for s in summaries for stage in s.seconds if stage != "total"), "total"]
    rows = [[s.profile, *(f"{s.seconds.get(stage, 0):.1f}" for stage in stages)] for s in summaries]
    return table(["profile", *stages], rows)


def _notes(summaries: Sequence[EvaluationSummary]) -> list[str]:
    notes = [f"- {s.profile} refused {name}: {why}" for s in summaries for name, why in s.refused.items()]
    notes += [f"- {s.profile} answered {name} with nothing, and no warning" for s in summaries for name in s.silent]
    return ["## Refused and silent", "\n".join(notes)] if notes else []

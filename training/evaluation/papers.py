"""How do our figures stand beside those that the two papers published? Their tables in their own layout.

Al-masni et al. 2020 (NeuroImage: Clinical 28:102464): five folds by subject; the figures of its abstract. Afzal et al.
2021 (Computers, Materials & Continua), Tables 1 and 2. Theirs are of patients; ours, if simulated, are not, and no
such pair of figures says which method is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .metrics import StudyResult
from .outcomes import DUPLICATE, JudgedMark, MarkOutcome
from .tables import SIMULATED, table

NOT_SAID = "–"
PATCH_THRESHOLD = 0.5
ALMASNI = (
    # data, subjects, CMBs, stage 1: sensitivity (%), false positives per subject; both stages: false per subject
    ("Al-masni 2020, high resolution (published)", 72, 188, 93.62, 52.18, 1.42),
    ("Al-masni 2020, low resolution (published)", 107, 572, 78.85, 155.50, 1.89),
)
AFZAL = (
    # model, accuracy, specificity, sensitivity (%), the profile that does the same
    ("Model 01: AlexNet", 87.0, 85.56, 84.39, "afzal-2021-alexnet-plain"),
    ("Model 01 (Augmentation)", 97.26, 96.5, 96.21, "afzal-2021-alexnet"),
    ("Model 02: ResNet50", 84.1, 83.1, 83.2, "afzal-2021-resnet50-plain"),
    ("Model 02 (Augmentation)", 97.89, 96.4, 95.23, "afzal-2021-resnet50"),
)
AFZAL_OTHERS = (
    # author, methodology, accuracy, sensitivity (%)
    ("Ateeq et al.", "CNN", 93.7, 97.3),
    ("Tao et al.", "GA + NN", 72.90, 72.90),
    ("Hong et al.", "PCA + Shallow Neural Network", 88.47, 88.3),
    ("Wang et al.", "CNN", 97.22, 97.3),
    ("Lu et al.", "SVM", 93.0, 90.0),
    ("Afzal et al.", "AlexNet", 87.0, 84.39),
    ("Afzal et al.", "AlexNet (Augmentation)", 97.0, 96.21),
    ("Afzal et al.", "ResNet50", 84.1, 84.1),
    ("Afzal et al.", "ResNet50 (Augmentation)", 97.89, 95.23),
)


@dataclass(frozen=True)
class PatchCounts:
    """Scored candidates as patches: right and wrong of those with a microbleed and of those without."""

    right_bleeds: int
    missed_bleeds: int
    right_others: int
    false_others: int

    @classmethod
    def of(cls, judged: Sequence[JudgedMark], threshold: float = PATCH_THRESHOLD) -> PatchCounts:
        """Count; more marks of a microbleed that has one, and microbleeds that cannot be seen, are left out."""
        bleeds = [j.mark.probability >= threshold for j in judged if j.verdict is MarkOutcome.HIT]
        others = [
            j.mark.probability >= threshold for j in judged if j.verdict is MarkOutcome.FALSE and j.lies_on != DUPLICATE
        ]
        return cls(sum(bleeds), len(bleeds) - sum(bleeds), len(others) - sum(others), sum(others))

    @property
    def accuracy(self) -> float | None:
        """Share of all that are right."""
        right = self.right_bleeds + self.right_others
        return _share(right, right + self.missed_bleeds + self.false_others)

    @property
    def specificity(self) -> float | None:
        """Share of those without a microbleed that are right."""
        return _share(self.right_others, self.right_others + self.false_others)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of specificity and sensitivity: one half if every candidate gets the same answer."""
        if self.specificity is None or self.sensitivity is None:
            return None
        return (self.specificity + self.sensitivity) / 2

    @property
    def sensitivity(self) -> float | None:
        """Share of those with a microbleed that are right."""
        return _share(self.right_bleeds, self.right_bleeds + self.missed_bleeds)


def patches_of(results: Sequence[StudyResult]) -> PatchCounts:
    """All scored candidates of some studies."""
    return PatchCounts.of([j for result in results for j in result.candidates])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return NOT_SAID if share is None else f"{100 * share:.2f}"


def almasni_table(folds: Sequence[Sequence[StudyResult]]) -> str:
    """Both stages by fold, and over all folds, above what was published.

    Stage 1 is every candidate that was scored. The abstract gives no end-to-end sensitivity for its false positives.
    """
    head = [
        "Fold", "Subjects", "CMBs",
        "Stage 1: detected", "sensitivity (%)", "FPs", "FPavg",
        "Both stages: detected", "sensitivity (%)", "FPs", "FPavg",
    ]  # fmt: skip
    rows: list[Sequence[object]] = [_fold(str(n), fold) for n, fold in enumerate(folds, start=1)]
    rows.append(_fold("All", [result for fold in folds for result in fold]))
    rows += [
        [name, subjects, bleeds, NOT_SAID, f"{first:.2f}", NOT_SAID, f"{false:.2f}", *[NOT_SAID] * 3, f"{both:.2f}"]
        for name, subjects, bleeds, first, false, both in ALMASNI
    ]
    return table(head, rows)


def _fold(name: str, results: Sequence[StudyResult]) -> list[object]:
    bleeds = sum(len(result.case.truth.visible) for result in results)
    cells: list[object] = [name, len(results), bleeds]
    for stage in ([result.candidates for result in results], [result.lesions for result in results]):
        hits = sum(j.verdict is MarkOutcome.HIT for judged in stage for j in judged)
        false = sum(j.verdict is MarkOutcome.FALSE for judged in stage for j in judged)
        average = f"{false / len(results):.2f}" if results else NOT_SAID
        cells += [hits, _percent(_share(hits, bleeds)), false, average]
    return cells


def afzal_table(patches: dict[str, PatchCounts]) -> str:
    """Table 1 of the paper: classification of patches, published and ours, by profile."""
    measures = ["Accuracy (%)", "Specificity (%)", "Sensitivity (%)", "Balanced accuracy (%)"]
    head = ["Performance Measurements", *measures, "ours: patches", *measures]
    rows: list[list[object]] = []
    for model, accuracy, specificity, sensitivity, profile in AFZAL:
        figures = (accuracy, specificity, sensitivity, (specificity + sensitivity) / 2)
        published = [f"{figure:.2f}" for figure in figures]
        rows.append([model, *published, *_ours(patches.get(profile))])
    known = {row[-1] for row in AFZAL}
    rows += [[name, *[NOT_SAID] * 4, *_ours(own)] for name, own in patches.items() if name not in known]
    return table(head, rows)


def _ours(own: PatchCounts | None) -> list[object]:
    if own is None:
        return [NOT_SAID] * 5
    count = own.right_bleeds + own.missed_bleeds + own.right_others + own.false_others
    return [count, *map(_percent, (own.accuracy, own.specificity, own.sensitivity, own.balanced_accuracy))]


def afzal_comparison(patches: dict[str, PatchCounts]) -> str:
    """Table 2 of the paper: methods by accuracy and sensitivity, ours below."""
    rows: list[list[object]] = [
        [author, method, f"{accuracy:.2f}", f"{sensitivity:.2f}"]
        for author, method, accuracy, sensitivity in AFZAL_OTHERS
    ]
    rows += [["ours", name, _percent(own.accuracy), _percent(own.sensitivity)] for name, own in patches.items()]
    return table(["Author", "Methodology", "Accuracy (%)", "Sensitivity (%)"], rows)


def paper_tables(folds: Mapping[str, Sequence[Sequence[StudyResult]]], simulated: bool) -> str:
    """The tables of both papers for all profiles that were cross-validated."""
    warning = (
        f"Published figures are of patients. {f'Ours: {SIMULATED[0].lower()}{SIMULATED[1:]}' if simulated else ''}"
    )
    parts = ["## Al-masni 2020: by fold", warning.strip()]
    for profile, own in folds.items():
        parts += [f"### {profile}", almasni_table(own)]
    patches = {profile: patches_of([r for fold in own for r in fold]) for profile, own in folds.items()}
    parts += [
        "## Afzal 2021, Table 1: patches",
        f"Ours are all scored candidates at probability {PATCH_THRESHOLD:g}, nearly all without a microbleed, so that "
        "accuracy and specificity are easily high; read the balanced accuracy (mean of specificity and sensitivity; "
        "calculated here for the published figures, too), and the end-to-end figures above.",
        afzal_table(patches),
        "## Afzal 2021, Table 2",
        afzal_comparison(patches),
    ]
    return "\n\n".join(parts)

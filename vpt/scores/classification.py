"""What an evaluation of a classification found: scores, intervals, scores per class, counts; as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from vpt.errors import VptError
from vpt.scores import class_resamples
from vpt.scores import classes as class_metrics
from vpt.scores.bootstrap import LEVEL, RESAMPLES, SEED, Statistic
from vpt.scores.class_checks import checked, checked_annotated, checked_probabilities
from vpt.scores.classes import BINS, decisions
from vpt.scores.fairness import score_odds
from vpt.scores.groups import Grouping, GroupScores, lacking_of, large_of, members_of, score_groups
from vpt.scores.plain import plain
from vpt.versions import version_of
from vpt.vocabulary import Target
from vpt.words import counted, listed

PER_CLASS = {  # key -> heading
    "n": "n",
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auroc": "AUROC",
}


@dataclass(frozen=True, eq=False)
class ClassificationScores:
    """Probabilities (N, K) and references (N, K), bool, of the named cases; `groups` names each case's patient.

    weights: whose the encoder's are, and their licence; groupings: what scores are told apart by; annotated: of labels
    (N, K) bool, which somebody has looked for, None for all: a case counts for those alone.

    Raises:
        VptError: numbers of names, cases and classes do not agree, or a value cannot be a probability or a reference.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    target: Target
    title: str = "Evaluation"
    groups: tuple[str, ...] | None = None
    weights: str | None = None
    groupings: tuple[Grouping, ...] = ()
    annotated: np.ndarray | None = None

    def __post_init__(self) -> None:
        probabilities, targets = checked(self.probabilities, self.targets, self.target)
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "targets", targets)
        if self.annotated is not None:
            looked = checked_annotated(self.annotated, targets, self.target)
            object.__setattr__(self, "annotated", None if looked.all() else looked)
        _check_names(self.names, self.classes, probabilities)
        if self.groups is not None and len(self.groups) != len(self.names):
            raise VptError(
                f"{counted(len(self.groups), 'group')} for {counted(len(self.names), 'case')}; name the patient of "
                "every case"
            )

    def scores(self) -> dict[str, float]:
        """See `class_metrics.class_scores`; NaN is undefined."""
        return dict(self._scores)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of every score: percentile bootstrap over cases, or patients if `groups` names them.

        Not of the calibration error: it grows with repeated cases, so that its interval may not even hold it.
        """
        return {name: self._intervals[name] for name in self._scores if name != "ece"}

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class -> n, recall, specificity, precision, f1, auroc, each against the rest; NaN is undefined."""
        found = class_metrics.per_class_scores(self.probabilities, self.targets, self.target, self.annotated)
        own = PER_CLASS if self.annotated is None else [*PER_CLASS, "annotated"]
        found["annotated"] = self.looked.sum(0)
        return {name: {key: found[key][k].item() for key in own} for k, name in enumerate(self.classes)}

    def confusion(self) -> np.ndarray:
        """Counts (K, K), reference by prediction; of labels (K, 2, 2), absent and present by not and predicted."""
        return class_metrics.confusion(self.probabilities, self.targets, self.target, self.annotated)

    @property
    def looked(self) -> np.ndarray:
        """(N, K) bool: what somebody has looked for."""
        return np.ones_like(self.targets) if self.annotated is None else self.annotated

    @property
    def decided(self) -> np.ndarray:
        """(N, K) bool: what is answered."""
        return decisions(self.probabilities, self.target)

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: everything about the case is right that somebody has looked for."""
        return class_metrics.all_right(self.probabilities, self.targets, self.target, self.annotated)

    def annotated_in_words(self) -> str:
        """In how many cases each label was looked for; empty where that is all of them."""
        if self.annotated is None:
            return ""
        counts = zip(self.classes, self.annotated.sum(0).tolist(), strict=True)
        said = listed((f"{name} in {count}" for name, count in counts), 20)
        return f"annotated: {said} of {counted(len(self.names), 'case')}, in which alone each is scored"

    def answers(self) -> list[tuple[str, str]]:
        """Of every case the reference and the prediction, labels joined by |, whether or not they were looked for."""
        return [
            (_joined(true, self.classes), _joined(found, self.classes))
            for true, found in zip(self.targets, self.decided, strict=True)
        ]

    def restricted(self, rows: Sequence[int]) -> Self:
        """Some of the cases, by their places."""
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        names = tuple(self.names[row] for row in rows)
        probabilities, targets = self.probabilities[list(rows)], self.targets[list(rows)]
        looked = None if self.annotated is None else self.annotated[list(rows)]
        return replace(self, names=names, probabilities=probabilities, targets=targets, groups=groups, annotated=looked)

    def statistic(self) -> Statistic:
        """Of weights (cases, r): every score of all r resamples, but the calibration error, as of `intervals`."""
        of_all = class_resamples.weighted_scores(self.probabilities, self.targets, self.target, self.annotated)
        return lambda weights: {name: values for name, values in of_all(weights).items() if name != "ece"}

    def statistic_by_class(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """recall and auroc of every class, each a function of weights (cases, r) that gives (classes, r)."""
        return class_resamples.weighted_by_class(self.probabilities, self.targets, self.target, self.annotated)

    @cached_property
    def by_group(self) -> tuple[GroupScores, ...]:
        """Of each grouping the scores of every group, and how answers differ between them."""
        return tuple(map(self._by, self.groupings))

    def _by(self, grouping: Grouping) -> GroupScores:
        def statistic_of(rows: np.ndarray) -> Statistic:
            return self.restricted(rows.tolist()).statistic()

        found = score_groups(self.names, grouping, statistic_of, self.groups, frozenset({"nll", "mae"}))
        owner = self.groups or self.names
        members = members_of(self.names, grouping)
        compared = {group: members[group] for group in large_of(members, owner)}
        odds = score_odds(self.decided, self.targets, self.classes, compared, owner, self.looked)
        return replace(found, odds=odds, lacking=lacking_of(self.targets, self.classes, members))

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; undefined scores are NaN here and null there."""
        return {
            "title": self.title,
            "target": self.target,
            "n": len(self.names),
            "scores": self.scores(),
            "intervals": {"level": LEVEL, "method": self.method(), **self.intervals()},
            "per_class": self.per_class(),
            "confusion": {
                "classes": list(self.classes),
                "axes": "label, reference, prediction" if self.target == "labels" else "reference, prediction",
                "counts": self.confusion().tolist(),
            },
            **({"by_group": [plain(each) for each in self.by_group]} if self.by_group else {}),
            **({"notes": [self.annotated_in_words()]} if self.annotated is not None else {}),
            "settings": self._settings(),
            **({"weights": self.weights} if self.weights else {}),
        }

    def to_csv(self) -> str:
        """One row per case: reference and prediction (labels joined by |), whether all is right, probabilities.

        Where not all labels were looked for everywhere, those that were too.
        """
        rows = zip(self.names, self.answers(), self.right, self.probabilities, self.looked, strict=True)
        partly = self.annotated is not None
        return _csv(
            ["name", "reference", "prediction", "correct", *(["annotated"] if partly else []), *_columns(self.classes)],
            (
                [name, *answer, int(right), *([_joined(looked, self.classes)] if partly else []), *_digits(given)]
                for name, answer, right, given, looked in rows
            ),
        )

    @cached_property
    def _scores(self) -> dict[str, float]:
        return class_metrics.class_scores(self.probabilities, self.targets, self.target, self.annotated)

    @cached_property
    def _intervals(self) -> dict[str, tuple[float, float]]:
        given = (self.probabilities, self.targets, self.target, self.groups, self.annotated)
        return class_resamples.intervals(*given, level=LEVEL, resamples=RESAMPLES, seed=SEED)

    def method(self) -> str:
        """How the intervals came about."""
        over = "cases" if self.groups is None else "patients"
        return f"percentile bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}"

    def _settings(self) -> dict[str, Any]:
        what = "of each label's probability" if self.target == "labels" else "of the predicted class's probability"
        chosen = f"labels above {class_metrics.THRESHOLD:g}" if self.target == "labels" else "the most probable class"
        return {
            "prediction": chosen,
            "ece": f"{BINS} equal bins {what}, L1",
            "mean over classes": "of those where the score is defined",
            "smallest probability in nll": class_metrics.SMALLEST,
            "torchmetrics": version_of("torchmetrics") or "unknown",
            "vpt": version_of("vpt") or "unknown",
        }


def probabilities_csv(names: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], target: Target) -> str:
    """Predictions (N, K) of cases without references as CSV: name, prediction (labels joined by |), p_CLASS..."""
    probabilities = checked_probabilities(probabilities, target)
    _check_names(names, classes, probabilities)
    rows = zip(names, decisions(probabilities, target), probabilities, strict=True)
    return _csv(
        ["name", "prediction", *_columns(classes)],
        ([name, _joined(found, classes), *_digits(given)] for name, found, given in rows),
    )


def _check_names(names: Sequence[str], classes: Sequence[str], probabilities: np.ndarray) -> None:
    if (len(names), len(classes)) != probabilities.shape:
        raise VptError(
            f"{counted(len(names), 'name')} and {counted(len(classes), 'class')} do not fit probabilities of shape "
            f"{probabilities.shape}; "
            "give one name per row and one class per column"
        )
    if len(set(names)) < len(names):
        (name, _), *_ = Counter(names).most_common(1)
        raise VptError(f"case {name!r} is there twice; give every case once, under a name of its own")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise VptError(f"class {twice!r} is there twice; give every column a name of its own")


def _csv(head: list[str], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"p_{name}" for name in classes]


def _joined(chosen: np.ndarray, classes: Sequence[str]) -> str:
    return "|".join(name for name, is_chosen in zip(classes, chosen, strict=True) if is_chosen)


def _digits(values: np.ndarray) -> list[str]:
    return [f"{value:.6g}" for value in values]

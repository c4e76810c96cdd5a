"""What an evaluation of masks found: scores per case and label -> means, intervals and counts, as JSON and CSV.

Means are nnU-Net's: per label over the cases that have a score, then over the labels. Never over slices.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vpt.errors import VptError
from vpt.scores.bootstrap import LEVEL, RESAMPLES, SEED, bootstrap
from vpt.scores.groups import Grouping, GroupScores, lacking_of, members_of, score_groups
from vpt.scores.lesions import SIZES, LesionSummary, sum_up
from vpt.scores.means import mean_defined, weighted_means
from vpt.scores.over_labels import resampled_mean, why_no_interval
from vpt.scores.plain import plain
from vpt.scores.settings import COUNTS, SCORES, VOLUMES, WITH_INTERVALS, CaseResult, Settings
from vpt.scores.trust import Limits, Quality, described, quality_csv
from vpt.scores.trust_scores import TrustScores, score_trust
from vpt.words import counted, listed

Side = Literal["predictions", "references"]


@dataclass(frozen=True)
class Doubt:
    """What may be wrong with the masks of one side: a sentence."""

    side: Side
    text: str

    def __str__(self) -> str:
        return f"{self.side}: {self.text}"


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of some cases on some labels (`labels`: id -> name). In every method `label=None` is the foreground.

    missing: the references that had no prediction and so are in no score; groups: names each case's patient;
    weights: whose the encoder's are, and their licence; groupings: what scores are told apart by; notes: what a reader
    has to know of the cases, such as how they were paired; doubts: what may be wrong with the masks; missing_files:
    the files of `missing`, where they are known.

    Raises:
        VptError: another number of groups than of cases.
    """

    cases: tuple[CaseResult, ...]
    labels: dict[int, str]
    settings: Settings = field(default_factory=Settings)
    missing: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    weights: str | None = None
    groupings: tuple[Grouping, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    qualities: tuple[Quality, ...] | None = None
    limits: Limits | None = None
    missing_files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.cases):
            raise VptError(
                f"{counted(len(self.groups), 'group')} for {counted(len(self.cases), 'case')}; name the patient of "
                "every case"
            )

    @property
    def scores(self) -> tuple[str, ...]:
        """The keys of SCORES that the cases have: images have no volume in ml."""
        return tuple(score for score in SCORES if self.settings.unit == "mm" or score not in VOLUMES)

    def values(self, score: str = "Dice", label: int | None = None) -> np.ndarray:
        """One score (a key of SCORES) of every case: (cases, labels), or (cases, 1) of one label; NaN is undefined."""
        if score not in self.scores:
            raise VptError(f"score: {score!r} is not one of {', '.join(self.scores)}")
        labels = self._chosen(label)
        rows = [[getattr(case.scores[each], SCORES[score]) for each in labels] for case in self.cases]
        return np.array(rows, dtype=float).reshape(len(self.cases), len(labels))

    def mean(self, score: str = "Dice", label: int | None = None) -> float:
        """Over cases, then (without `label`) over labels; NaN when no case has this score."""
        return mean_defined(mean_defined(self.values(score, label), 0), 0).item()

    def interval(self, score: str = "Dice", label: int | None = None) -> tuple[float, float]:
        """95 % interval of the mean: percentile bootstrap over cases, or patients if `groups` names them, the same at
        every call.

        (NaN, NaN) when fewer than two cases, or patients, have the score; of the foreground that of any label which
        some case has. Resamples that lack a label are left out of its interval, and of the foreground's, which has
        none where they are more than half. Without `groups` cases count as independent: several scans of one patient
        make the interval too narrow.
        """
        labels = self._chosen(label)
        if score not in self._known:
            self._known[score] = self._intervals(score)
        return self._known[score]["foreground" if label is None else str(*labels)]

    def counts(self, label: int | None = None) -> dict[str, int]:
        """`cases` that were annotated for it, and how many of them are `both_empty`, `false_positives` (on an empty
        reference), `missed` (an empty prediction), `hd95_undefined` (one side empty). For the foreground the latter are
        sums over the labels.
        """
        scores = [case.scores[each] for case in self.cases for each in self._chosen(label)]
        cases = len(self.cases) if label is None else sum(score.is_known for score in scores)
        return {"cases": cases} | {name: sum(map(test, scores)) for name, test in COUNTS.items()}

    def annotated(self) -> str:
        """How many cases were annotated for each label, in words; empty where all were for all."""
        known = {name: self.counts(label)["cases"] for label, name in self.labels.items()}
        if all(count == len(self.cases) for count in known.values()):
            return ""
        said = listed((f"{name} in {count}" for name, count in known.items()), 20)
        return f"annotated: {said} of {counted(len(self.cases), 'case')}, in which alone each is scored"

    def remarks(self) -> list[str]:
        """What a reader has to know of the scores, in sentences."""
        return [*filter(None, [self.annotated(), self.rarely_scored()])]

    def rarely_scored(self) -> str:
        """In which scores the foreground has no interval though labels have, and why; empty where there is none."""
        names, owner = list(self.labels.values()), "case" if self._units is None else "patient"
        scored, lacking = list[str](), dict[str, list[str]]()
        for score in WITH_INTERVALS:
            values = self.values(score)
            if not np.isfinite(values).any():
                continue
            scored.append(score)
            if math.isnan(self.interval(score)[0]) and (why := why_no_interval(values, self._owners, names, owner)):
                lacking.setdefault(why, []).append(score)
        told = [f"{'' if scores == scored else f' in {listed(scores, 7)}'}: {why}" for why, scores in lacking.items()]
        return f"no interval of the foreground{'; none'.join(told)}" if told else ""

    def worst_first(self) -> list[CaseResult]:
        """Cases by their mean Dice over labels, the lowest first, those without one last."""
        found = mean_defined(self.values("Dice"), 1)
        order = np.argsort(np.where(np.isnan(found), np.inf, found), kind="stable")
        return [self.cases[k] for k in order]

    def left_out(self) -> list[dict[str, str]]:
        """What is in no mean, or in some only: case, label (its name) and why, a key of COUNTS but `cases`."""
        return [
            {"case": case.name, "label": name, "why": why}
            for case in self.cases
            for label, name in self.labels.items()
            for why, happened in COUNTS.items()
            if happened(case.scores[label])
        ]

    @cached_property
    def lesions(self) -> dict[int, LesionSummary]:
        """Of labels that were looked at lesion by lesion: what was found of them."""
        edges = SIZES[self.settings.unit]
        return {
            label: sum_up([case.lesions[label] for case in self.cases], self._units, edges)
            for label in self.settings.lesions
        }

    @cached_property
    def by_group(self) -> tuple[GroupScores, ...]:
        """Of each grouping the mean Dice of every group, `foreground` and each label by its name."""
        values = self.values("Dice")

        def statistic_of(rows: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
            def means(weights: np.ndarray) -> dict[str, np.ndarray]:
                each = weighted_means(np.ascontiguousarray(weights.T, dtype=float), values[rows])
                return {"foreground": mean_defined(each, 1), **dict(zip(self.labels.values(), each.T, strict=True))}

            return means

        def resampled_of(rows: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
            owners = [self._owners[row] for row in rows]
            return _resampled(values[rows], self.labels.values(), owners)

        names, labels = [case.name for case in self.cases], list(self.labels.values())

        def by(grouping: Grouping) -> GroupScores:
            found = score_groups(names, grouping, statistic_of, self.groups, resampled_of=resampled_of)
            members = members_of(names, grouping)
            why = {
                row.group: why_no_interval(
                    values[rows := members[row.group]], [self._owners[k] for k in rows], labels, "patient"
                )
                for row in found.rows
                if row.patients > 1 and math.isnan(row.intervals["foreground"][0])
            }
            without = {group: reason for group, reason in why.items() if reason}
            return replace(found, lacking=lacking_of(np.isfinite(values), labels, members), without_interval=without)

        return tuple(map(by, self.groupings))

    @cached_property
    def trust(self) -> TrustScores | None:
        """Whether the qualities tell good cases from bad; None without them, and where no case has a Dice."""
        if self.qualities is None:
            return None
        names, dice = list(self.labels.values()), self.values("Dice")
        return score_trust(dice, names, self.qualities, self.limits, self._units)

    def quality_csv(self) -> str:
        """A row for each case and one for each of its structures; raises ValueError without qualities."""
        if self.qualities is None:
            raise ValueError("no qualities were asked for")
        named = zip((case.name for case in self.cases), self.qualities, strict=True)
        return quality_csv({name: described(quality, self.limits) for name, quality in named})

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`: nnU-Net's keys and ours; None where a score is undefined."""
        everything: dict[str, int | None] = {"foreground": None, **{str(label): label for label in self.labels}}
        over = "cases" if self._units is None else "patients"
        where_there_are_some = {
            "notes": [*self.remarks(), *self.notes],
            "doubts": [str(doubt) for doubt in self.doubts],
            "lesions": {str(label): plain(found) for label, found in self.lesions.items()},
            "by_group": [plain(each) for each in self.by_group],
            "quality": plain(self.trust),
        }
        return {
            "foreground_mean": self._means(None),
            "mean": {str(label): self._means(label) for label in self.labels},
            "confidence_intervals": {
                "level": LEVEL,
                "method": f"percentile bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}",
                **{
                    key: {score: plain(self.interval(score, label)) for score in WITH_INTERVALS}
                    for key, label in everything.items()
                },
            },
            "counts": {
                "missing_predictions": len(self.missing),
                **{key: self.counts(label) for key, label in everything.items()},
            },
            "missing_predictions": list(self.missing),
            "left_out": self.left_out(),
            "labels": {str(label): name for label, name in self.labels.items()},
            **{key: value for key, value in where_there_are_some.items() if value},
            "settings": self.settings.to_dict(),
            **({"weights": self.weights} if self.weights else {}),
            "metric_per_case": [
                {
                    "case": case.name,
                    "metrics": {str(label): self._scores_of(case, label) for label in self.labels},
                    "prediction_file": case.prediction_file,
                    "reference_file": case.reference_file,
                }
                for case in self.cases
            ],
        }

    def to_json(self) -> str:
        return json.dumps(self.summary(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """One row per case and label, the worst cases first; an undefined score is an empty cell."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case", "label", "name", *self.scores, "prediction_file", "reference_file"])
        for case in self.worst_first():
            for label, name in self.labels.items():
                scores = ["" if value is None else value for value in self._scores_of(case, label).values()]
                writer.writerow([case.name, label, name, *scores, case.prediction_file, case.reference_file])
        return out.getvalue()

    @cached_property
    def _known(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Score -> intervals that were asked for already."""
        return {}

    @cached_property
    def _units(self) -> tuple[str, ...] | None:
        """`groups` where they say more than the cases do: one scan per patient is drawn as a case."""
        return None if self.groups is None or len(set(self.groups)) == len(self.groups) else self.groups

    @cached_property
    def _owners(self) -> Sequence[object]:
        """Whose each case is: a patient's, or without `groups` nobody else's."""
        return self.groups or range(len(self.cases))

    def _intervals(self, score: str) -> dict[str, tuple[float, float]]:
        """One score's intervals, of the foreground and of each label, from the same resamples."""
        if len(self.cases) < 2:
            return dict.fromkeys(["foreground", *map(str, self.labels)], (math.nan, math.nan))
        means = _resampled(self.values(score), map(str, self.labels), self._owners)
        return bootstrap(means, len(self.cases), self._units)

    def _means(self, label: int | None) -> dict[str, float | None]:
        return {score: plain(self.mean(score, label)) for score in self.scores}

    def _scores_of(self, case: CaseResult, label: int) -> dict[str, Any]:
        return {score: plain(getattr(case.scores[label], SCORES[score])) for score in self.scores}

    def _chosen(self, label: int | None) -> list[int]:
        if label is not None and label not in self.labels:
            raise VptError(f"label {label} is not in {list(self.labels)}, the labels of this report")
        return list(self.labels) if label is None else [label]


def _resampled(
    values: np.ndarray, names: Iterable[str], owners: Sequence[object]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Scores (cases, labels) -> a function of resamples that gives the means of the foreground and of each label."""
    means = {"foreground": resampled_mean(values, owners)}
    means |= {name: resampled_mean(values[:, [k]], owners) for k, name in enumerate(names)}
    return lambda weights: {name: mean(weights) for name, mean in means.items()}

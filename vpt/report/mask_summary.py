"""`summary.json` of an evaluation of masks, as its page reads it: what is not there is not shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpt.report.blocks import Block
from vpt.report.stored_blocks import stored_blocks, stored_trust
from vpt.scores.trust_scores import TrustScores

SHOWN = {  # key -> heading, digits
    "Dice": ("Dice", 3),
    "IoU": ("IoU", 3),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "NSD": ("NSD", 3),
    "HD95": ("HD95", 2),
    "ASSD": ("ASSD", 2),
}
DISTANCES = ("HD95", "ASSD")


@dataclass(frozen=True)
class MaskCase:
    """A case: its name, label -> score -> value (NaN where undefined), and the files that were compared."""

    name: str
    scores: Mapping[int, Mapping[str, float]]
    prediction_file: str
    reference_file: str

    @property
    def dice(self) -> float:
        """The mean over the labels that have one; NaN without any."""
        defined = [value for each in self.scores.values() if math.isfinite(value := each.get("Dice", math.nan))]
        return sum(defined) / len(defined) if defined else math.nan

    @property
    def nothing_predicted(self) -> bool:
        """Although there is something to find."""
        return not self._sum("n_pred") and self._sum("n_ref") > 0

    @property
    def nothing_there(self) -> bool:
        return not self._sum("n_ref")

    def size(self, label: int, whose: str, unit: str) -> float:
        """The size of `ref` or `pred`: ml of scans, pixels of images."""
        return self.scores[label].get(f"volume_{whose}_ml" if unit == "mm" else f"n_{whose}", math.nan)

    def _sum(self, key: str) -> float:
        return sum(value for each in self.scores.values() if math.isfinite(value := each.get(key, 0.0)))


@dataclass(frozen=True)
class MaskSummary:
    """An evaluation of masks: labels by id, their means and intervals (`foreground`: over all), and the cases.

    unit: of distances, mm or px; method: of the intervals, in words; settings: how scores were made; notes: on cases;
    doubts: of masks; tables: of lesions, groups and trust, with their headings; trust: which cases to trust, where it
    was asked for.
    """

    title: str
    labels: Mapping[int, str]
    means: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    method: str
    counts: Mapping[str, Mapping[str, int]]
    missing: tuple[str, ...]
    cases: tuple[MaskCase, ...]
    unit: str
    settings: Mapping[str, Any]
    weights: str | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    tables: tuple[tuple[str, Block], ...] = ()
    trust: TrustScores | None = None

    @property
    def shown(self) -> dict[str, str]:
        """The scores that some case has, key -> heading with its unit."""
        there = {key for means in self.means.values() for key, value in means.items() if math.isfinite(value)}
        named = {key: words for key, (words, _) in SHOWN.items() if key in there}
        return {key: f"{words} ({self.unit})" if key in DISTANCES else words for key, words in named.items()}

    def worst_first(self) -> list[MaskCase]:
        """The cases by Dice; those without one, in which there was nothing to find and nothing was found, are last."""
        return sorted(self.cases, key=lambda case: (math.isnan(case.dice), case.dice, case.name))

    def dice(self, key: str = "foreground") -> float:
        """The mean of a label (by its id), or over all."""
        return self.means[key].get("Dice", math.nan)

    @property
    def size_unit(self) -> str:
        return "ml" if self.unit == "mm" else "px"


def read_mask_summary(found: Mapping[str, Any], names: Sequence[str]) -> MaskSummary:
    """The content of `summary.json`; names: of the cases in its order."""
    labels = {int(label): str(name) for label, name in found["labels"].items()}
    intervals = found["confidence_intervals"]
    keys = ["foreground", *map(str, labels)]
    settings = found.get("settings", {})
    return MaskSummary(
        title=str(settings.get("title", "Evaluation")),
        labels=labels,
        means={"foreground": _values(found["foreground_mean"])}
        | {label: _values(means) for label, means in found["mean"].items()},
        intervals={key: {score: _ends(ends) for score, ends in intervals.get(key, {}).items()} for key in keys},
        method=str(intervals.get("method", "")),
        counts={key: found["counts"].get(key, {}) for key in keys},
        missing=tuple(found.get("missing_predictions", ())),
        cases=tuple(_case(each, name) for each, name in zip(found["metric_per_case"], names, strict=True)),
        unit="px" if "tolerance_px" in settings else "mm",
        settings=settings,
        weights=found.get("weights"),
        notes=tuple(found.get("notes", ())),
        doubts=tuple(map(str, found.get("doubts", ()))),
        tables=tuple(stored_blocks(found, "Dice")),
        trust=stored_trust(found),
    )


def _case(found: Mapping[str, Any], name: str) -> MaskCase:
    scores = {int(label): _values(each) for label, each in found["metrics"].items()}
    return MaskCase(name, scores, str(found["prediction_file"]), str(found["reference_file"]))


def _values(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: math.nan if value is None else float(value)
        for key, value in found.items()
        if value is None or isinstance(value, int | float)
    }


def _ends(found: Sequence[Any]) -> tuple[float, float]:
    low, high = (math.nan if end is None else float(end) for end in found)
    return low, high

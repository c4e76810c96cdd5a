"""What is done with the masks of a model is chosen on validation cases: only what raises Dice by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vpt.data.cases import Case
from vpt.data.label_maps import read_label
from vpt.data.label_values import IGNORED
from vpt.data.postprocess import STEPS, WORDS, Step, Steps, tidied
from vpt.progress import Tick, silent
from vpt.scores.bootstrap import LEVEL, bootstrap
from vpt.scores.cases import score_case

LEAST = 5  # patients, of fewer no interval says anything
Variant = tuple[Step, ...]
VARIANTS: tuple[Variant, ...] = ((), ("largest",), ("fill",), ("largest", "fill"))


@dataclass(frozen=True)
class Tried:
    """A step of one label: mean Dice over cases that it added, with its interval, and whether it is kept."""

    label: str
    step: Step
    gain: float
    interval: tuple[float, float]
    kept: bool

    def __str__(self) -> str:
        low, high = self.interval
        verdict = "kept" if self.kept else "left out"
        return f"{WORDS[self.step].format(self.label)}: Dice {self.gain:+z.4f} ({low:+z.4f} to {high:+z.4f}), {verdict}"


@dataclass(frozen=True)
class Choice:
    """The steps that are kept, and all that were tried; why: where nothing could be tried."""

    steps: Steps = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()
    why: str = ""

    def sentences(self) -> Iterator[str]:
        yield from (f"post-processing: {text}" for text in ([self.why] if self.why else map(str, self.tried)))


def choose_steps(
    cases: Sequence[Case],
    masks: Sequence[Path],
    patients: Sequence[str],
    labels: Mapping[int, str],
    progress: Tick = silent,
) -> Choice:
    """Raw masks of labelled cases -> what is to be done with each label.

    A step is kept if the paired bootstrap over patients finds its gain in the label's mean Dice above 0. As two steps
    of every label are tried, the interval is that of `LEVEL` for all of them together (Bonferroni).
    """
    foreground = {label: name for label, name in sorted(labels.items()) if label > 0}
    if len(set(patients)) < LEAST:
        return Choice(why=f"validation has fewer than {LEAST} patients, so nothing is chosen")
    dice = np.full((len(cases), len(foreground), len(VARIANTS)), np.nan)
    for done, (case, mask) in enumerate(zip(cases, masks, strict=True)):
        dice[done] = _dice_of(case, mask, list(foreground))
        progress(done + 1, len(cases), case.name)
    level = 1 - (1 - LEVEL) / (len(STEPS) * len(foreground))
    steps: dict[int, tuple[Step, ...]] = {}
    tried: list[Tried] = []
    for column, (label, name) in enumerate(foreground.items()):
        found = [*_tried(name, dice[:, column], patients, level)]
        tried += found
        if kept := tuple(each.step for each in found if each.kept):
            steps[label] = kept
    return Choice(steps, tuple(tried))


def _dice_of(case: Case, mask: Path, labels: Sequence[int]) -> np.ndarray:
    """(labels, variants) of one case, each label treated by itself."""
    truth = read_label(case.label, [0, *labels], None, case.name)
    raw = read_label(mask, [0, *labels], truth.grid, case.name).array
    reference = truth.array if truth.ignored is None else np.where(truth.array == truth.ignored, IGNORED, truth.array)
    rows = []
    for label in labels:
        variants = (tidied(raw.copy(), {label: variant}) if variant else raw for variant in VARIANTS)
        rows.append(
            [
                score_case(each, reference, (1,) * raw.ndim, [label], distances=False, ignored=IGNORED)[label].dice
                if case.annotated is None or label in case.annotated
                else math.nan
                for each in variants
            ]
        )
    return np.array(rows)


def _tried(name: str, dice: np.ndarray, patients: Sequence[str], level: float) -> Iterator[Tried]:
    """The steps of one label one after the other, each beside what is kept so far. dice: (cases, variants)."""
    kept: Variant = ()
    for step in STEPS:
        more = (*kept, step)
        gains = dice[:, VARIANTS.index(more)] - dice[:, VARIANTS.index(kept)]
        there = np.isfinite(gains)
        gain = float(gains[there].mean()) if there.any() else math.nan
        interval = interval_of(
            gains[there], [patient for patient, is_there in zip(patients, there, strict=True) if is_there], level
        )
        is_kept = math.isfinite(interval[0]) and interval[0] > 0
        kept = more if is_kept else kept
        yield Tried(name, step, gain, interval, is_kept)


def interval_of(gains: np.ndarray, patients: Sequence[str], level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean over cases, by the bootstrap over patients; NaN of too few of these."""
    if len(set(patients)) < LEAST:
        return math.nan, math.nan

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"gain": gains @ weights / weights.sum(0)}

    return bootstrap(mean, len(gains), patients, level=level)["gain"]

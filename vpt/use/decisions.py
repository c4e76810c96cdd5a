"""How masks are made of probabilities is chosen on validation cases: as usual but where another way raises Dice by more
than noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from vpt.data.cases import Case
from vpt.progress import Tick, silent
from vpt.use.scored_splits import evaluate_split
from vpt.use.segmenter import Segmenter
from vpt.use.tidying import LEAST, interval_of
from vpt.vocabulary import DECIDED, Decision

if TYPE_CHECKING:
    from vpt.report.segmentation import Report


@dataclass(frozen=True)
class DecisionChoice:
    """What the masks of the highest expected Dice add to the mean Dice of cases beside the likeliest labels, with its
    interval; NaN of too few patients.
    """

    gain: float
    interval: tuple[float, float]

    @property
    def decision(self) -> Decision:
        return "dice" if self.interval[0] > 0 else "likeliest"

    def __str__(self) -> str:
        if math.isnan(self.interval[0]):
            return f"decision: validation has fewer than {LEAST} patients with a labelled voxel, so nothing is chosen"
        low, high = self.interval
        verdict = "kept" if self.decision == "dice" else "left out"
        return f"decision: {DECIDED['dice']}: Dice {self.gain:+z.4f} ({low:+z.4f} to {high:+z.4f}), {verdict}"


def choose_decision(
    segmenter: Segmenter, cases: Sequence[Case], report: Report, progress: Tick = silent
) -> DecisionChoice:
    """The paired bootstrap over patients says whether the mask of the highest expected Dice is the better one.

    report: of these cases' likeliest labels, with their patients. A case counts by the mean over its labels.
    """
    patients = dict(zip((case.name for case in cases), report.groups or (), strict=True))
    if len(set(patients.values())) < LEAST:
        return DecisionChoice(math.nan, (math.nan, math.nan))
    usual = segmenter.decision
    segmenter.decision = "dice"
    try:
        with TemporaryDirectory() as folder:
            wider = evaluate_split(
                segmenter, cases, Path(folder), patients.__getitem__, title="", progress=progress
            ).values("Dice")
    finally:
        segmenter.decision = usual
    gains = wider - report.values("Dice")
    there = np.isfinite(gains).any(1)
    of_cases = np.nanmean(gains[there], axis=1)
    who = [patient for patient, is_there in zip(patients.values(), there, strict=True) if is_there]
    return DecisionChoice(float(of_cases.mean()) if there.any() else math.nan, interval_of(of_cases, who))

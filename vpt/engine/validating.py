"""Dice of whole validation volumes while a run trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from vpt.data.label_values import IGNORED
from vpt.data.slices.cached_slices import PreparedCase
from vpt.engine.job import worst_of
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.setup import Setup
from vpt.scores.cases import score_case
from vpt.tasks.segmentation import segment_slices

See = Callable[[str, np.ndarray, np.ndarray, Mapping[str, float]], None]
"""Of a case that was validated: its name, what was found and what is there (slices, rows, columns), Dice by label."""


def validate(
    forward: nn.Module,
    cases: Sequence[PreparedCase],
    setup: Setup,
    batch_size: int,
    see: See | None = None,
    ranks: Ranks = ALONE,
    groups: Sequence[Sequence[int]] = (),
) -> dict[str, float]:
    """Dice on whole volumes of the scan's own voxels: mean over cases per label, then over labels.

    A label that is absent from truth and prediction of every case has no score and is left out, as it is of cases that
    were not annotated for it; 0 if all are. Each of the ranks segments some of the cases, and all of them know the
    scores. groups: places of cases among all; then the least Dice of a group that has any is told as well.
    """
    forward.eval()
    names = list(setup.dataset.labels.values())
    classes = range(1, len(names))
    scores: list[dict[int, float]] = []
    for case in ranks.dealt(cases):
        images, _ = case.read()
        truth = case.truth()
        found = segment_slices(
            forward,
            images,
            setup.plan,
            pixels=case.part.inside[1:] if case.part else truth.shape[1:],
            device=setup.device,
            classes=len(names),
            batch_size=batch_size,
        )
        placed = case.part.placed(found) if case.part else found
        known = classes if case.annotated is None else case.annotated
        found_scores = score_case(placed, truth, (1, 1, 1), known, distances=False, ignored=IGNORED)
        scores.append({k: s.dice for k, s in found_scores.items()})
        if see:
            see(case.name, placed, truth, {names[k]: value for k, value in scores[-1].items()})
    scores = ranks.collected(scores, len(cases))
    of_labels = means(scores, names)
    worst = {worst_of("dice"): worst_dice(groups, scores, names)} if groups else {}
    return {"dice": mean(of_labels), **worst, **of_labels}


def worst_dice(groups: Sequence[Sequence[int]], scores: Sequence[Mapping[int, float]], names: Sequence[str]) -> float:
    """The least mean over labels of a group that has any score, 0 without; groups: places of cases."""
    own = [found for group in groups if (found := means([scores[place] for place in group], names))]
    return min(map(mean, own), default=0.0)


def means(scores: Sequence[Mapping[int, float]], names: Sequence[str]) -> dict[str, float]:
    """The mean over cases of each label that has a score; scores: class -> Dice of every case."""
    by_label = {names[k]: [s[k] for s in scores if not np.isnan(s.get(k, np.nan))] for k in range(1, len(names))}
    return {f"dice_{name}": float(np.mean(values)) for name, values in by_label.items() if values}


def mean(of_labels: Mapping[str, float]) -> float:
    return float(np.mean(list(of_labels.values()))) if of_labels else 0.0

"""In which order cases should be trusted: agreement of an ensemble's members, and forms of entropy, on the test side.

    python benchmarks/trust.py ../shared/data/kvasir_seg RUN RUN RUN ...

Images with masks. The area under risk (1 - Dice) against coverage of each score, with its 95 % interval, and agreement
of all members minus each other score on the same cases. `vpt evaluate --mean --quality` has the first, the last and the
entropy over what was found; the other forms are here for comparison.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import Tensor

import vpt
from vpt.data.label_maps import read_label
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.scores.bootstrap import bootstrap
from vpt.scores.trust import pairwise_dice
from vpt.scores.trust_scores import aurc
from vpt.tasks.segmentation import likeliest
from vpt.tasks.witness import entropy
from vpt.use.segmenter import Segmenter


class Doubts:
    """What is doubted by each score, the larger the more; sees the one slice of an image."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def see(self, place: int, mean: Tensor, members: Sequence[Tensor]) -> None:
        masks = [likeliest(each) > 0 for each in members]
        for name, probabilities in (("the mean", mean), ("one model", members[0])):
            unsure = entropy(probabilities)
            self.found[f"entropy of {name}, all pixels"] = float(unsure.mean())
            inside = unsure[likeliest(probabilities) > 0]
            self.found[f"entropy of {name}, found pixels"] = float(inside.mean()) if len(inside) else math.nan
        sizes = np.array([[float(mask.sum())] for mask in masks])
        shared = np.array([[float((a & b).sum())] for a, b in combinations(masks, 2)])
        for count in range(2, len(masks) + 1):
            pairs = [k for k, (_, b) in enumerate(combinations(range(len(masks)), 2)) if b < count]
            self.found[f"agreement of {count}"] = -float(pairwise_dice(sizes[:count], shared[pairs])[0])


def dice_of(found: np.ndarray, truth: np.ndarray) -> float:
    """Of two masks; NaN where both are empty."""
    both = int(found.sum() + truth.sum())
    return 2 * int((found & truth).sum()) / both if both else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="+", help="two or more")
    given = parser.parse_args()
    dataset = read_dataset(given.data, None, None)
    ensemble = vpt.load(given.runs)
    assert isinstance(ensemble, Segmenter)
    cases = [dataset.case(name) for name in read_splits(dataset).to_dict()["test"]]
    dice, found = [], []
    for case in cases:
        doubts, prepared = Doubts(), ensemble.prepare(case.images)
        mask = ensemble.mask_of(prepared, ensemble.labels_of(prepared, keep=doubts.see))
        truth = read_label(case.label, dataset.labels, prepared.grid, case.name).counted[..., 0].T  # (rows, columns)
        dice.append(dice_of(np.asarray(mask) > 0, truth > 0))
        found.append(doubts.found)
    defined = np.flatnonzero(np.isfinite(dice)).tolist()
    risk, patients = 1 - np.array(dice)[defined], [dataset.patient(cases[k].name) for k in defined]
    scores = {name: np.array([found[k][name] for k in defined]) for name in found[0]}
    scores = {name: np.where(np.isnan(values), math.inf, values) for name, values in scores.items()}
    scores |= {"at random": np.zeros(len(risk)), "best possible": risk}
    best = f"agreement of {len(given.runs)}"

    def areas(weights: np.ndarray) -> dict[str, np.ndarray]:
        own = {name: aurc(risk, doubt, weights) for name, doubt in scores.items()}
        others = [name for name in found[0] if name != best]
        return own | {f"{best} minus {name}": own[best] - own[name] for name in others}

    whole, intervals = areas(np.ones((len(risk), 1))), bootstrap(areas, len(risk), patients)
    print(f"{given.data.name}: {len(risk)} cases, mean Dice {1 - risk.mean():.3f}")
    for name, (area,) in whole.items():
        low, high = intervals[name]
        print(f"{name:58s} {area:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()

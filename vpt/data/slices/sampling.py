"""How training draws its slices: evenly, or label by label where one is so rare that it would hardly be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from vpt.data.cases import Case
from vpt.data.label_maps import positions, read_label
from vpt.progress import Tick
from vpt.readers import reader_of
from vpt.vocabulary import Sampling

RARE = 0.2  # a label that labelled slices hold less than a fifth as often as the most frequent one


class Labelled(Protocol):
    @property
    def labels(self) -> dict[int, str]: ...


def choose_sampling(
    dataset: Labelled, cases: Sequence[Case], orientation: str, most: int, progress: Tick
) -> tuple[Sampling, str]:
    """Label by label where one is rare in the slices of the first `most` cases, and why.

    orientation: of the slices, as `vpt.data.plan.ORIENTATIONS` has it. Of a single label nothing is read.
    """
    ids = [id for id in dataset.labels if id]
    if len(ids) == 1:
        return "even", "one label: any labelled slice has it"
    shares = label_shares(dataset, cases[:most], ids, orientation, progress)
    seen = shares if len(cases) > most else {id: share for id, share in shares.items() if share}
    if not any(seen.values()):
        return "even", "no labelled slice"
    rarest, first = min(seen, key=lambda id: seen[id]), max(seen, key=lambda id: seen[id])
    said = (
        f"{dataset.labels[rarest]} is in {seen[rarest]:.2g} of the labelled slices, {dataset.labels[first]} "
        f"in {seen[first]:.2g}"
    )
    if seen[rarest] < RARE * seen[first]:
        return "by_label", f"{said}, more than five times as often: every label is drawn as often as the others"
    return "even", f"{said}, at most five times as often: labelled slices are drawn alike"


def label_shares(
    dataset: Labelled, cases: Sequence[Case], ids: Sequence[int], orientation: str, progress: Tick
) -> dict[int, float]:
    """Label id -> how often a labelled slice holds it, where cases are drawn evenly and then one of their slices."""
    found = []
    for done, case in enumerate(cases, start=1):
        scan = reader_of(case.scan)
        label = read_label(case.label, dataset.labels, scan.grid(), scan.name).oriented(orientation)
        held = held_by_slices(positions(label.array, [0, *ids], label.ignored), len(ids))
        if held.any():
            found.append(held[held.any(axis=1)].mean(axis=0))
        progress(done, len(cases), case.name)
    return dict(zip(ids, np.mean(found, axis=0).tolist() if found else [0.0] * len(ids), strict=True))


def held_by_slices(classes: np.ndarray, labels: int) -> np.ndarray:
    """Classes (slices, rows, columns), 0 or less where no label is -> (slices, labels), which slice holds which."""
    counts = [np.bincount(each[each > 0], minlength=labels + 1)[1:] for each in classes]
    return np.array(counts).reshape(len(classes), labels) > 0


def in_turn(count: int, rng: np.random.Generator) -> Iterator[int]:
    """0 to count - 1 in an order of its own, again and again without end; of a single one nothing is drawn."""
    while True:
        yield from rng.permutation(count).tolist() if count > 1 else (0,)

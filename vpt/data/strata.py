"""What the masks of a data set hold, and patients dealt into folds that resemble each other in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.cases import Case, SegmentationSet
from vpt.data.label_maps import read_label
from vpt.progress import Tick, silent

QUANTILES = 4  # of the foreground, of which every fold has its share


@dataclass(frozen=True)
class Held:
    """The labels that a mask holds, and how much they are together: in ml, of an image its share."""

    labels: frozenset[int] = frozenset()
    amount: float = 0.0

    def joined(self, other: Held) -> Held:
        return Held(self.labels | other.labels, self.amount + other.amount)


def read_held(dataset: SegmentationSet, cases: Sequence[Case], progress: Tick = silent) -> dict[str, Held]:
    """Case -> what its mask holds; raises VptError for what `read_label` refuses."""
    found = {}
    for done, case in enumerate(cases, start=1):
        label = read_label(case.label, dataset.labels, None, str(case.images[0]))
        counted = label.counted
        unit = label.grid.voxel_ml if dataset.kind == "volumes" else 1 / counted.size
        ids = frozenset(int(id) for id in label.ids if id and id != label.ignored)
        found[case.name] = Held(ids, float(np.count_nonzero(counted)) * unit)
        progress(done, len(cases), case.name)
    return found


def of_patients(dataset: SegmentationSet, names: Iterable[str], held: Mapping[str, Held]) -> dict[str, Held]:
    """Patient -> what the masks of these cases hold together; a case that is not in `held` holds nothing."""
    found: dict[str, Held] = {}
    for name in names:
        patient = dataset.patient(name)
        found[patient] = found.get(patient, Held()).joined(held.get(name, Held()))
    return found


def deal(patients: Sequence[str], held: Mapping[str, Held], count: int) -> list[list[str]]:
    """Patients into `count` folds of sizes that differ by one at most, each with its share of what they hold.

    The rarest label goes first: those that hold it, most foreground first, each to the fold that has least of it; of
    equal ones to that with the fewest of the same quantile of foreground, the smallest, the first. Of equal patients
    the order given decides.
    """
    quantile = _quantiles(patients, held)
    rarity = Counter(id for patient in patients for id in held[patient].labels)
    labels = sorted(rarity, key=lambda id: (rarity[id], id))
    left = dict.fromkeys(sorted(patients, key=lambda patient: -held[patient].amount))
    folds = _Folds(count, len(patients))
    for label in (*labels, None):
        for patient in [each for each in left if label is None or label in held[each].labels]:
            folds.add(patient, label, held[patient].labels, quantile[patient])
            del left[patient]
    return [sorted(members) for members in folds.members]


def _quantiles(patients: Sequence[str], held: Mapping[str, Held]) -> dict[str, int]:
    """Patient -> which quarter of the patients, by foreground, is theirs."""
    ranked = sorted(patients, key=lambda patient: held[patient].amount)
    return {patient: rank * QUANTILES // len(ranked) for rank, patient in enumerate(ranked)}


class _Folds:
    """Folds that are being filled: who is in each, and how many hold a label or are of a quantile."""

    def __init__(self, count: int, patients: int):
        self.members: list[list[str]] = [[] for _ in range(count)]
        self.labels = [Counter[int]() for _ in range(count)]
        self.quantiles = [Counter[int]() for _ in range(count)]
        self.size, self.larger = divmod(patients, count)  # so many folds have one more

    def add(self, patient: str, label: int | None, labels: Iterable[int], quantile: int) -> None:
        def load(fold: int) -> tuple[int, int, int]:
            of_label = 0 if label is None else self.labels[fold][label]
            return of_label, self.quantiles[fold][quantile], len(self.members[fold])

        fold = min(self._open(), key=load)
        self.members[fold].append(patient)
        self.labels[fold].update(labels)
        self.quantiles[fold][quantile] += 1

    def _open(self) -> list[int]:
        """Folds that may still grow."""
        full = sum(len(members) > self.size for members in self.members)
        most = self.size + (full < self.larger)
        return [fold for fold, members in enumerate(self.members) if len(members) < most]

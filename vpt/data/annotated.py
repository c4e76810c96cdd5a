"""Which labels somebody has looked for in each case, where these are not all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vpt.data.cases import Case, SegmentationSet
from vpt.errors import VptError
from vpt.readers import LabelMap
from vpt.words import counted, listed


def annotated_in(case: Case, labels: Mapping[int, str]) -> frozenset[int]:
    """The ids of labels above 0 that a case was annotated for."""
    return frozenset(id for id in labels if id) if case.annotated is None else case.annotated


def classes_annotated(case: Case, labels: Mapping[int, str]) -> tuple[int, ...] | None:
    """Positions of these labels among all, the background's is 0; None where they are all."""
    if case.annotated is None:
        return None
    return tuple(place for place, id in enumerate(labels) if id in case.annotated)


def require_annotated(found: LabelMap, case: Case, labels: Mapping[int, str]) -> None:
    """Raise VptError for a mask that holds a label which its case does not say that it was annotated for."""
    if case.annotated is None:
        return
    known = {0, found.ignored, *case.annotated}
    if odd := [labels.get(id, str(id)) for id in np.unique(found.array).tolist() if id not in known]:
        declared = listed(labels[id] for id in sorted(case.annotated)) or "nothing"
        raise VptError(
            f"{found.name}: holds {listed(odd)}, but the case {case.name} is annotated for {declared} alone; add it to "
            "`annotated`, or take it out of the mask"
        )


def keep_labels(dataset: SegmentationSet, names: Iterable[str]) -> SegmentationSet:
    """The set with those of the names that it lacks as further labels, which no case is annotated for.

    Their ids follow the largest in its files.
    """
    lacking = [name for name in names if name not in dataset.labels.values()]
    if not lacking:
        return dataset
    largest = max([*dataset.labels, *(dataset.label_values.names if dataset.label_values else ())])
    further = {largest + 1 + place: name for place, name in enumerate(lacking)}
    cases = tuple(replace(case, annotated=annotated_in(case, dataset.labels)) for case in dataset.cases)
    return replace(dataset, labels=dataset.labels | further, cases=cases)


def counts_of(cases: Sequence[Case], labels: Mapping[int, str]) -> dict[str, int]:
    """Label -> how many of the cases were annotated for it."""
    said = [annotated_in(case, labels) for case in cases]
    return {name: sum(id in each for each in said) for id, name in labels.items() if id}


def annotated_in_words(cases: Sequence[Case], labels: Mapping[int, str]) -> str:
    """`liver in 8, spleen in 4 of 12 cases`; empty where all labels are annotated in all cases."""
    counts = counts_of(cases, labels)
    if all(count == len(cases) for count in counts.values()):
        return ""
    said = listed((f"{name} in {count}" for name, count in counts.items()), 20)
    return f"{said} of {counted(len(cases), 'case')}"


def annotation_doubts(
    dataset: SegmentationSet, sides: Mapping[str, Sequence[str]], held: Collection[str] = ()
) -> Iterator[str]:
    """How many cases of each side are annotated for each label, and the labels that none is; nothing where all are.

    sides: `training` and `validation`, with their cases; held: labels that are taught by a model that knows them.
    """
    lacks = {"training": "nothing teaches what it looks like", "validation": "no epoch is chosen by it"}
    for side, names in sides.items():
        cases = [dataset.case(name) for name in names]
        if not (said := annotated_in_words(cases, dataset.labels)):
            continue
        yield f"annotated for {side}: {said}"
        none = [name for name, count in counts_of(cases, dataset.labels).items() if not count]
        for name in none if cases else ():
            why = "the artifact annotates it" if side == "training" and name in held else lacks[side]
            yield f"{name}: no {side} case is annotated for it, so {why}"

"""Predictions and the masks of a data set whose dataset.json says by patterns which files count (`pairs`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vpt.data.cases import without_ending
from vpt.data.ids_in_names import RARER, own_name
from vpt.data.layouts.patterns import is_paired, survey_pairs
from vpt.errors import VptError
from vpt.readers import LabelFiles
from vpt.use.evaluation.paired_names import mask_files, require_references
from vpt.use.evaluation.pairs import Matched, Pair, mask_of


def pair_with_set(predictions: Path, references: Path, own: Sequence[Path]) -> Matched | None:
    """Masks called as cases of the set, or as their scans with the folders above these; None for no such set.

    own: the folders in that of the predictions which hold masks.

    Raises:
        VptError: a prediction of no case or of several, two of one case.
    """
    try:
        if not is_paired(references):
            return None
    except VptError:  # a dataset.json that cannot be read pairs nothing
        return None
    dataset, _ = survey_pairs(references)
    known: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for case in dataset.cases:
        known[(case.name,)].add(case.name)
        for scan in case.images:
            parts = Path(without_ending(scan.relative_to(references))).parts
            for at in range(len(parts)):
                known[parts[at:]].add(case.name)
    found: dict[str, Path] = {}
    lacking = []
    for path in (path for below in (Path(), *own) for path in mask_files(predictions / below)):
        inside = Path(without_ending(path.relative_to(predictions)))
        names = known.get(inside.parts) or known.get((*inside.parts[:-1], own_name(inside.name, RARER)), set())
        if len(names) != 1:
            lacking.append(str(inside))
        elif (other := found.setdefault(next(iter(names)), path)) != path:
            raise VptError(f"{path}: of the case {next(iter(names))}, as {other} is; keep one of the two")
    cases = {case.name: case for case in dataset.cases}
    require_references(lacking, cases, predictions, references, "the names of cases or their scans")
    pairs = [
        Pair(mask_of(found[name]), mask_of(case.label), name, references)
        for name, case in cases.items()
        if name in found and case.label is not None
    ]
    missing = {name: case.files[-1] for name, case in cases.items() if name not in found}
    if not pairs:
        return None
    by_label = any(isinstance(case.label, LabelFiles) for case in cases.values())
    labels = {id: label for id, label in dataset.labels.items() if id and by_label}
    return replace(Matched.of(pairs, missing, "references are those that dataset.json pairs"), labels=labels)

"""Whether predictions are numbered as references whose labels are a file each, by the table beside them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from vpt.data.layouts.description import description, given_labels
from vpt.errors import VptError
from vpt.use.evaluation.pairs import Pair
from vpt.use.evaluation.scored_labels import dataset_files
from vpt.words import listed

TABLE = "predictions.csv"  # of `vpt predict`
UNIT = " (ml)"  # behind the labels in it, which stand in the order of their numbers


def require_numbered_alike(predictions: object, labels: Mapping[int, str], pairs: Sequence[Pair]) -> None:
    """Raise VptError where the predictions' own table names other labels, or in another order; labels: id -> name.

    Where a dataset.json of the references names labels, their numbers are known.
    """
    table = Path(predictions) / TABLE if isinstance(predictions, str | Path) else None
    maps = any(isinstance(pair.prediction.source, Path) for pair in pairs)
    if not labels or not maps or table is None or not table.is_file():
        return
    if any(given_labels(description(file), file) for file in dataset_files(pairs)):
        return
    with open(table, newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    theirs = [name.removesuffix(UNIT) for name in header if name.endswith(UNIT)]
    expected = [name for _, name in sorted(labels.items())]
    if theirs and theirs != expected:
        folder = pairs[0].folder
        raise VptError(
            f"{table}: the masks beside it are of {listed(theirs)}, and {folder} holds files of {listed(expected)}, so "
            f'numbers may differ; say those of the masks in {folder}/dataset.json: "labels": {{"{expected[0]}": 1, '
            "...}, with every label that has files"
        )

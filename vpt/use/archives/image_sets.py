"""The images of a MedMNIST .npz to probabilities: a table, a line for each (`test_00017`), and no record beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpt.data.layouts.medmnist import is_medmnist, npz_rows
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import reader_of
from vpt.use.archives.batch import Asked, Outcome
from vpt.use.archives.classes import classify_cases
from vpt.use.archives.outputs import plan_predictions
from vpt.use.archives.tables import write_table
from vpt.use.classifier import Classifier
from vpt.words import counted


def is_image_set(inputs: Sequence[Path]) -> bool:
    """Whether an input is a MedMNIST .npz. Raises VptError where it is one of several."""
    sets = [path for path in inputs if is_medmnist(path)]
    if sets and len(inputs) > 1:
        raise VptError(f"{sets[0]}: a data set of many images (MedMNIST), beside other inputs; give it by itself")
    return bool(sets)


def classify_set(classifier: Classifier, source: Path, out: Path, asked: Asked, progress: Tick = silent) -> Outcome:
    """Probabilities of all its images into a table, or predictions.csv in the folder `out`.

    Raises:
        VptError: what is no such file, a table that may not be replaced, what needs a record of scans.
    """
    if asked.existing == "continue" or asked.part.of > 1:
        raise VptError(f"{source}: --continue and parts are of scans in files of their own; leave them out")
    path, (rows, _, _) = plan_predictions(out, asked.existing == "overwrite"), npz_rows(source, None)
    _require_alike(classifier, source, rows[0].image)
    cases = [(row.name, (row.image,)) for row in rows]
    names, probabilities, failures = classify_cases(classifier, cases, progress, asked.force)
    if names:
        write_table(path, classifier, names, probabilities)
    return Outcome("classified", len(rows), path, failures)


def _require_alike(classifier: Classifier, source: Path, image: Any) -> None:
    """One refusal of all images, which have one shape, where they are not what the model was trained on."""
    plan, read = classifier.plan, reader_of(image)
    found = f"{read.kind} of {counted(read.count_channels(exact=False), 'channel')}"
    known = f"{plan.kind} of {counted(len(plan.channels), 'channel')}"
    if read.kind != plan.kind or read.count_channels(exact=False) > len(plan.channels):
        raise VptError(f"{source}: {found}, but the model was trained on {known}; give it what it was trained on")

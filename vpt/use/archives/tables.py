"""The table of what was classified."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpt.files import write_json
from vpt.report.classification import write_probabilities
from vpt.scores.classification import probabilities_csv
from vpt.use.archives.outputs import STREAM
from vpt.use.classifier import Classifier


def write_table(path: Path, classifier: Classifier, names: Sequence[str], probabilities: np.ndarray) -> None:
    """A CSV as ever, on standard output for `-`; or JSON, the probability of every class by the scan's name."""
    if path == STREAM:
        sys.stdout.write(probabilities_csv(names, probabilities, classifier.classes, classifier.target))
    elif path.suffix.lower() == ".json":
        rows = zip(names, probabilities.tolist(), strict=True)
        write_json(path, {name: dict(zip(classifier.classes, row, strict=True)) for name, row in rows})
    else:
        write_probabilities(path, names, probabilities, classifier.classes, classifier.target)

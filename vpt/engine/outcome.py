"""What is kept of a training that was one of many: what it cost, its score case by case, or why it failed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vpt.artifact import read_artifact
from vpt.errors import VptError
from vpt.report.classification import ClassReport
from vpt.report.segmentation import Report
from vpt.scores.classes import decisions


def cost_of(run: Path, seconds: float) -> dict[str, Any]:
    """The cost of a run: what trains, whose weights, the artifact's bytes, time in all (`seconds`) and of a step."""
    artifact = read_artifact(run / "last.safetensors")
    with open(run / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "counts": artifact.counts,
        "weights": str(artifact.origin) if artifact.origin else None,
        "artifact_bytes": artifact.path.stat().st_size,
        "seconds": max(seconds, float(last["seconds"])),  # of a resumed run the whole training
        "seconds_per_step": float(last["seconds"]) / float(last["steps"]),
    }


def per_case(report: Report | ClassReport) -> dict[str, float]:
    """Case -> the score that is compared.

    Of classes and grades 1 where the answer is right, of labels the share of right answers, of masks Dice, averaged
    over the labels that have one; cases without any (absent in mask and reference) are left out.
    """
    if isinstance(report, ClassReport):
        right = (decisions(report.probabilities, report.target) == report.targets) & report.looked
        values = right.sum(1) / report.looked.sum(1) if report.target == "labels" else report.right
        return dict(zip(report.names, values.astype(float).tolist(), strict=True))
    names = [case.name for case in report.cases]
    dice = zip(names, report.values("Dice"), strict=True)
    return {name: float(np.nanmean(values)) for name, values in dice if not np.isnan(values).all()}


def in_a_line(error: Exception) -> str:
    """What went wrong, for a table; the kind of error too where it was not foreseen."""
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, VptError) and said else ": ".join(filter(None, [type(error).__name__, said]))

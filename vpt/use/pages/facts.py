"""What a run's folder says of itself, as facts for its page: the plan, the model, its costs, how to repeat it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from vpt.artifact import Artifact
from vpt.data.label_values import LabelValues
from vpt.data.postprocess import in_words
from vpt.errors import VptError
from vpt.files import read_json, require_file
from vpt.model import trained_parts
from vpt.report.parts import Tile
from vpt.report.report_page import FactGroup
from vpt.use.pages.making import as_typed
from vpt.vocabulary import DECIDED, NO_ENCODER
from vpt.words import counted

Row = Mapping[str, float]
LONGEST_METRICS = 64 << 20  # bytes


def read_metrics(run: Path) -> list[Row]:
    """metrics.csv, a row per epoch; NaN where a cell is empty.

    Raises:
        VptError: it is damaged.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    require_file(path, LONGEST_METRICS, "numbers")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {key: float(value) if value else math.nan for key, value in row.items()} for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:  # a row with more cells than columns has a list in it
        raise VptError(f"{path}: damaged ({error}); remove it, and pages go without its curves") from error


def groups_of(run: Path, artifact: Artifact, rows: Sequence[Row]) -> list[FactGroup]:
    return [
        FactGroup("Data and plan", tuple(_plan(artifact)), "How a scan becomes what the encoder sees, and why."),
        FactGroup("Model and cost", tuple(_model(artifact, rows))),
        FactGroup("Encoder and its licence", tuple(_origin(artifact))),
        FactGroup("To repeat it", tuple(_environment(run, artifact))),
    ]


def tiles_of(artifact: Artifact) -> list[Tile]:
    """What the page's head says of the model."""
    size = artifact.path.stat().st_size / 1e6
    return [Tile("Trained parameters", f"{artifact.counts['trained']:,}", f"artifact of {size:.2f} MB")]


def _plan(artifact: Artifact) -> Iterator[tuple[str, str]]:
    plan = artifact.plan
    yield "data set", str(artifact.config.data.path)
    yield "task", f"{artifact.config.task}{f' of {artifact.config.data.target}' if artifact.config.data.target else ''}"
    yield "labels", ", ".join(f"{label} {name}" for label, name in artifact.labels.items())
    if plan.label_values:
        yield "label values", str(LabelValues(plan.label_values))
    yield "plan", str(plan)
    yield "channels", ", ".join(plan.channels)
    yield "intensity", "; ".join(dict.fromkeys(map(str, plan.intensity)))
    for what, why in plan.reasons.items():
        yield f"why {what}", why


def _model(artifact: Artifact, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    config, counts = artifact.config, artifact.counts
    yield "encoder", config.backbone.name if config.backbone.name != NO_ENCODER else "none: the head reads the images"
    for part, settings in (("prompts", config.prompts), ("head", config.head)):
        yield part, ", ".join(f"{key} {value}" for key, value in settings.model_dump().items() if value is not None)
    tuning = config.tuning.model_dump(exclude_none=True)
    yield "tuning", ", ".join(str(value) if key == "method" else f"{key} {value}" for key, value in tuning.items())
    if config.fair is not None:
        yield "fair", f"{config.fair.method}, groups by {config.fair.by}"
    shares = ", ".join(f"{counts[part]:,} {part}" for part in trained_parts(counts))
    if artifact.decision != "likeliest":
        yield "decision", f"{DECIDED[artifact.decision]}; chosen on validation"
    if artifact.postprocess:
        yield "post-processing", f"{in_words(artifact.postprocess, artifact.labels)}; chosen on validation"
    yield "trained parameters", f"{counts['trained']:,} ({shares})"
    yield "frozen parameters", f"{counts['frozen']:,}"
    yield "artifact", f"{artifact.path.stat().st_size / 1e6:.2f} MB"
    if rows:
        last = rows[-1]
        yield (
            "training",
            f"{counted(int(last['epoch']), 'epoch')}, {last['steps']:,.0f} steps, {_duration(last['seconds'])}",
        )
        yield "time per step", f"{1000 * last['seconds'] / max(last['steps'], 1):.0f} ms, validation included"


def _origin(artifact: Artifact) -> Iterator[tuple[str, str]]:
    if artifact.config.backbone.name == NO_ENCODER:
        yield "weights of", "no encoder was used"
        return
    yield "weights of", artifact.origin.weights if artifact.origin else "not recorded"
    yield "their licence", artifact.origin.licence if artifact.origin else "not recorded"
    yield "weights SHA-256", artifact.backbone_sha256


def _environment(run: Path, artifact: Artifact) -> Iterator[tuple[str, str]]:
    said = read_json(run / "environment.json") if (run / "environment.json").is_file() else {}
    found: Mapping[str, Any] = said if isinstance(said, dict) else {}
    command = found.get("command")
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        yield "command", as_typed(command)
    yield "run", str(run)
    yield "seed", str(artifact.config.seed)
    yield artifact.path.name, f"SHA-256 {sha256(artifact.path.read_bytes()).hexdigest()}"
    versions = found.get("versions")
    if not isinstance(versions, dict) or not versions:
        versions = artifact.versions
    yield "versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    for key in ("python", "platform", "device", "threads"):
        if key in found:
            yield key, str(found[key])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

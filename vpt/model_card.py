"""The card of a run's model: what it is for, what it was made from, and where its limits are."""

from __future__ import annotations

from pathlib import Path

from vpt.artifact import Artifact, read_artifact
from vpt.artifact_tasks import labels_of, tasks_of
from vpt.describe import artifact_facts, split_facts
from vpt.files import write_text
from vpt.report.pages import render

CARD = "model_card.md"


def write_card(run: Path) -> None:
    """Write `model_card.md` beside a finished run's artifact."""
    artifact = read_artifact(run)
    facts = [*artifact_facts(artifact), *split_facts(run)]
    page = render("card.md", title=_title(artifact), use=_use(artifact), facts=facts, licence=_licence(artifact))
    write_text(run / CARD, page)


def _title(artifact: Artifact) -> str:
    return f"{artifact.config.task} of {artifact.config.data.path.name}"


def _use(artifact: Artifact) -> str:
    segments = artifact.config.task == "segmentation"
    data = ", ".join(dict.fromkeys(each.config.data.path.name for each in tasks_of(artifact).values()))
    named = ", ".join(name for label, name in labels_of(artifact).items() if label or not segments)
    kind = "images" if artifact.plan.kind == "images" else f"{artifact.plan.plane} slices"
    what = "Segmenting" if segments else "Telling apart"
    return f"{what} {named} in {kind} of {', '.join(artifact.plan.channels)}, as {data} has them."


def _licence(artifact: Artifact) -> str:
    return str(artifact.origin) if artifact.origin else "none, the head reads the images alone"

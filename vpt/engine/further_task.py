"""A run that learns to segment a further task: prompts and a head of its own beside those of an artifact, one encoder.

Nothing that was learned is touched, so earlier tasks answer bit for bit what they did; which of them a new scan is for
is told by the features of the encoder alone (`vpt.use.by_task`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.artifact import Artifact, read_artifact
from vpt.artifact_tasks import PROMPTS, named_by, prompts_in, tasks_of
from vpt.building import FROZEN
from vpt.config import Config, ResolvedConfig
from vpt.data.plan import Plan
from vpt.engine.folder import EARLIER
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.words import counted, listed

LEAST = 2  # training cases, by which a scan's task is chosen


def is_beside(config: Config, artifact: Artifact | None) -> bool:
    """Whether the run is of a further task with prompts of its own."""
    return artifact is not None and config.start.adds and artifact.config.task == "segmentation"


def beside(config: Config, artifact: Artifact, digest: str, encoder: Any) -> Config:
    """The config of a further task: the artifact's encoder and image size, its prompts and head unless others are set.

    encoder: the section of the artifact's encoder as it is loaded now; digest: SHA-256 of the artifact's file.

    Raises:
        VptError: an artifact or settings by which old answers would change, or no task could be chosen.
    """
    own, tasks = artifact.config, tasks_of(artifact)
    task = config.start.task or named_by(config.data.path)
    _require_fit(tasks, artifact.path)
    _require_settings(config, artifact.path)
    if task in tasks:
        raise VptError(
            f"{artifact.path}: has learned a task called {task!r}; give the new one another name with "
            "--set start.task=NAME"
        )
    sections = {name: getattr(own, name) for name in ("prompts", "head") if name not in config.model_fields_set}
    if config.start.shared:
        sections["prompts"] = own.prompts
    kept: dict[str, Any] = {"image_size": artifact.plan.image_size}
    if artifact.plan.kind == "volumes":
        kept["plane"] = artifact.plan.plane
    if differing := [key for key, value in kept.items() if getattr(config.plan, key) not in (None, value)]:
        raise VptError(
            f"{artifact.path}: plan.{differing[0]} is {kept[differing[0]]} there, and all tasks of one model have the "
            "same; leave it out"
        )
    start = config.start.model_copy(update={"path": artifact.path, "sha256": digest, "task": task})
    plan = config.plan.model_copy(update=kept)
    return config.model_copy(update={**sections, "task": own.task, "backbone": encoder, "plan": plan, "start": start})


def _require_fit(tasks: Mapping[str, Artifact], path: Path) -> None:
    for task, artifact in tasks.items():
        own = artifact.config
        found = {
            "reads no encoder": not own.head.encoded,
            f"was trained with tuning {own.tuning.method}, which changes the encoder": own.tuning.method != FROZEN,
            "kept no training cases, by which a scan's task is chosen (train.keep_cases, two cases at least)": (
                artifact.familiar is None
            ),
        }
        if wrong := [what for what, so in found.items() if so]:
            raise VptError(f"{path}: {task} {wrong[0]}; train it so that tasks can be added to it")


def _require_settings(config: Config, path: Path) -> None:
    given = {
        f"tuning.method={config.tuning.method}": config.tuning.method != FROZEN,
        "start.kept": config.start.kept is not None,
        "train.keep_cases=false": not config.train.keep_cases,
        "fair.method=reprogram": config.fair is not None and config.fair.method == "reprogram",
    }
    if wrong := [key for key, so in given.items() if so]:
        raise VptError(
            f"{path}: {wrong[0]} with --continue: a further task has prompts and a head of its own on the encoder as "
            "it is, and is told by its training cases; leave it out"
        )


def require_same_files(tasks: Mapping[str, Artifact], plan: Plan, cases: int, path: Path) -> None:
    """Raise VptError where the new task looks at other files than those before, or has too few cases to be told by."""
    theirs = next(iter(tasks.values())).plan
    if (theirs.kind, len(theirs.channels)) != (plan.kind, len(plan.channels)):
        raise VptError(
            f"{path}: {plan.kind} of {counted(len(plan.channels), 'channel')}, but the artifact's tasks are of "
            f"{theirs.kind} of "
            f"{len(theirs.channels)}, and a scan is given to one of them; train a model of its own, vpt.Bank holds both"
        )
    if cases < LEAST:
        raise VptError(f"{path}: {cases} training case, by which no scan's task can be chosen; give {LEAST} at least")


def keep_copy(artifact: Artifact, run: Path) -> None:
    """Keep a copy of the artifact in the run's folder, which needs nothing else of it from then on."""
    shutil.copyfile(artifact.path, run / EARLIER)


def kept_tasks(run: Path) -> dict[str, Artifact]:
    """The tasks before, of a run that is there already."""
    return tasks_of(read_artifact(run / EARLIER)) if (run / EARLIER).is_file() else {}


def share_prompts(model: PromptedModel, tasks: Mapping[str, Artifact]) -> None:
    """Let the prompts go on from where the last task left them (the control `start.shared`)."""
    *_, last = tasks.values()
    model.prompts.load_state_dict({name.removeprefix(PROMPTS): t for name, t in prompts_in(last).items()})


def shared_labels(labels: Mapping[int, str], tasks: Mapping[str, Artifact]) -> list[str]:
    """A sentence for each label that is one with that of a task before, since it has the same name.

    labels: of the new task. Masks without names are all of an `object`, be it a liver or a lung.
    """
    found = {
        name: [task for task, each in tasks.items() if name in {n for label, n in each.labels.items() if label}]
        for label, name in labels.items()
        if label
    }
    return [
        f"{name} is one label with that of {listed(theirs, 5)}; if it is not, name it in dataset.json (labels)"
        for name, theirs in found.items()
        if theirs
    ]


def beside_in_words(config: ResolvedConfig, tasks: Mapping[str, Artifact]) -> str:
    """What becomes of the tasks before."""
    task, known = config.start.task, listed(tasks, 10)
    if config.start.shared:
        return f"adds the task {task!r}, whose training goes on with the one set of prompts that also answers {known}"
    return f"adds the task {task!r} with prompts and a head of its own; the answers of {known} stay"

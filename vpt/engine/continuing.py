"""A run that learns a further task beside those of an artifact: its classes are added, what was learned stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.artifact import Artifact
from vpt.artifact_tasks import name_of, named_by
from vpt.building import FROZEN
from vpt.config import Config, ResolvedConfig
from vpt.data.doubts.class_names import written_otherwise
from vpt.data.layouts import read_labelled
from vpt.errors import VptError
from vpt.heads import Answer
from vpt.heads.by_task import ByTaskConfig, ByTaskHead
from vpt.heads.linear import ClassifyHead
from vpt.model import PromptedModel
from vpt.restoring import restore_model
from vpt.words import counted, listed


def learned_tasks(artifact: Artifact) -> dict[str, tuple[str, ...]]:
    """Task -> its classes, in the order in which the artifact learned them."""
    own = artifact.config
    if isinstance(own.head, ByTaskConfig):
        return own.head.learned
    return {name_of(artifact): tuple(artifact.labels.values())}


def further_task(config: Config, artifact: Artifact) -> dict[str, Any]:
    """What of a config changes for a further task: prompts, head and the task's name.

    Raises:
        VptError: an artifact that no task can be added to; settings that would change old answers, or mean nothing; a
            name that a task has already.
    """
    _require_fit(artifact)
    _require_settings(config, artifact.path)
    own, earlier = artifact.config, learned_tasks(artifact)
    task = config.start.task or named_by(config.data.path)
    if task in earlier:
        raise VptError(
            f"{artifact.path}: has learned a task called {task!r} ({listed(earlier[task])}); give the new one another "
            "name with --set start.task=NAME"
        )
    return {
        "prompts": own.prompts.further(),
        "head": ByTaskConfig(learned=earlier, pool=own.head.pool, start=own.head.start),
        "start": config.start.model_copy(update={"task": task}),
    }


def _require_fit(artifact: Artifact) -> None:
    own, plan = artifact.config, artifact.plan
    found = {
        f"answers {own.data.target}": own.data.target not in ("classes", None),
        f"has the head {own.head.kind}": own.head.kind not in ("linear", "by_task"),
        "classifies volumes": plan.slices is not None,
        f"mixes {counted(len(plan.channels), 'channel')}": plan.mixes,
        f"was trained with tuning {own.tuning.method}": own.tuning.method != FROZEN,
        "was trained with fair": own.fair is not None,
    }
    if wrong := [what for what, so in found.items() if so]:
        raise VptError(
            f"{artifact.path}: {wrong[0]}; tasks are added one after another to a classifier of images of one class "
            "each, with a linear head on a frozen encoder, since all else would change its old answers; give such a "
            "run, or start anew with --from"
        )


def _require_settings(config: Config, path: Path) -> None:
    if config.fair is not None:
        raise VptError(f"{path}: fair with --continue: groups are treated alike within one training; leave it out")
    if config.train.calibrate:
        raise VptError(
            f"{path}: train.calibrate=True with --continue: a temperature fitted to the new task would change the "
            "answers of those before; leave it out"
        )
    given = {"start.kept": config.start.kept, "data.classes": config.data.classes}
    if set_ := [key for key, value in given.items() if value]:
        raise VptError(
            f"{path}: {set_[0]}={given[set_[0]]} with --continue: all classes of the artifact stay, in their order, "
            "and those of the data follow; leave it out"
        )


def with_task(config: Config) -> Config:
    """The config of a further task with the classes that the data hold, added to those that were learned.

    Raises:
        VptError: data of another target; a class that differs from a known one in capitals or blanks alone.
    """
    data, head, task = config.data, config.head, config.start.task
    assert isinstance(head, ByTaskConfig)
    assert task is not None
    if task in head.learned:
        return config
    own = read_labelled(data.path, data.target, None, data.patients, data.only)
    if own.target != "classes":
        raise VptError(f"{data.path}: its target is {own.target}; a task is added of images of one class each")
    _require_plain(own.classes, head.classes, data.path)
    grown = head.further(task, own.classes)
    data = data.model_copy(update={"classes": grown.classes, "only": own.classes})
    return config.model_copy(update={"head": grown, "data": data})


def _require_plain(names: tuple[str, ...], known: tuple[str, ...], path: Path) -> None:
    if pair := written_otherwise(names, known):
        raise VptError(
            f"{path}: has the class {pair[0]!r}, and the artifact knows {pair[1]!r}, which would be another one; call "
            "it as the artifact does"
        )


def continued_model(artifact: Artifact, config: ResolvedConfig, labels: Mapping[int, str]) -> PromptedModel:
    """The artifact's model with prompts and head for one more task: what they have learned, and what trains beside it.

    config: as `adopt` and `with_task` made it.
    """
    encoder = artifact.config.model_copy(update={"backbone": config.backbone})
    model = restore_model(replace(artifact, config=encoder))
    head, prompts = (
        config.head.build(model.backbone, Answer(len(labels))),
        config.prompts.build_for(model.backbone.spec, len(labels)),
    )
    assert isinstance(head, ByTaskHead)
    assert isinstance(model.head, ClassifyHead)
    head.continue_from(model.head, artifact.temperature)
    prompts.continue_from(model.prompts)
    model.head, model.prompts = head, prompts
    return model.train()


def task_in_words(artifact: Artifact, config: ResolvedConfig) -> str:
    """What becomes of the classes of both."""
    known = tuple(artifact.labels.values())
    (*_, task), classes = config.head.learned, config.data.only or ()
    new, again = ([name for name in classes if (name in known) == so] for so in (False, True))
    said = [f"adds {listed(new, 10)}"] if new else []
    said += [f"learns {listed(again, 10)} once more, beside the rows they have"] if again else []
    stays = f"what {listed(learned_tasks(artifact))} taught the head stays"
    return (
        f"goes on from {artifact.path} with the task {task!r}: {' and '.join(said)}; {stays}; while it trains, "
        "validation is among the task's own classes, which choose the epoch"
    )

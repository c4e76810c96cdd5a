"""The tasks that an artifact has learned to segment one after another, and with which prompts it answers each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from torch import Tensor

from vpt.artifact import Artifact

PROMPTS = "prompts."  # how the names of their tensors begin


def named_by(path: Path) -> str:
    """What a task is called after its data: a folder's name, or a file's without its ending."""
    return path.name if path.is_dir() or not path.suffix else path.stem


def name_of(artifact: Artifact) -> str:
    """The name of an artifact's own task, which is the last one."""
    own = artifact.config
    return own.start.task or named_by(own.data.path)


def tasks_of(artifact: Artifact) -> dict[str, Artifact]:
    """Task -> what learned it, in their order; the last one is the artifact's own."""
    return {**artifact.earlier, name_of(artifact): replace(artifact, earlier={})}


def answering(artifact: Artifact) -> dict[str, Artifact]:
    """Task -> what answers it: what learned it, but where a later task trained its prompts on (`start.shared`)."""
    tasks = list(tasks_of(artifact).items())
    for number in range(len(tasks) - 1, 0, -1):
        (task, before), (_, after) = tasks[number - 1 : number + 1]
        if after.config.start.shared:
            own = {name: tensor for name, tensor in before.tensors.items() if not name.startswith(PROMPTS)}
            tasks[number - 1] = task, replace(before, tensors=own | prompts_in(after))
    return dict(tasks)


def prompts_in(artifact: Artifact) -> dict[str, Tensor]:
    """The tensors of its prompts, by their names in it."""
    return {name: tensor for name, tensor in artifact.tensors.items() if name.startswith(PROMPTS)}


def labels_of(artifact: Artifact) -> dict[int, str]:
    """What the ids in its masks are called, of all its tasks together, see `common_ids`."""
    if not artifact.earlier:
        return artifact.labels
    return common_labels({task: each.labels for task, each in tasks_of(artifact).items()})


def common_labels(labels: Mapping[str, Mapping[int, str]]) -> dict[int, str]:
    """id among all -> name, with background 0; labels: as of `common_ids`."""
    ids = common_ids(labels)
    named = {ids[task][label]: name for task, own in labels.items() for label, name in own.items() if label}
    return {0: "background", **dict(sorted(named.items()))}


def common_ids(labels: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, int]]:
    """Task -> {id of its own: id among all}, 0 left out; a name has one id.

    An id that another name has already is replaced by the smallest that is free. So a further task changes none of
    those before. labels: task -> id -> name, with background 0.
    """
    known: dict[str, int] = {}
    found: dict[str, dict[int, int]] = {}
    for task, names in labels.items():
        for label, name in sorted(names.items()):
            if label and name not in known:
                known[name] = label if label not in known.values() else _free({*known.values(), *names})
        found[task] = {label: known[name] for label, name in names.items() if label}
    return found


def _free(taken: set[int]) -> int:
    return next(label for label in count(1) if label not in taken)

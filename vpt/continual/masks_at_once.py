"""The control that sees all organs or sites at once: one model of all labels, a case annotated for its own task's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpt.artifact_tasks import common_ids, common_labels
from vpt.config import load_config
from vpt.config.training import TrainConfig
from vpt.continual.learner import Learner
from vpt.continual.mask_tasks import MaskTask, by_name, of_any_task, true_masks
from vpt.continual.protocol import JOINT, Protocol
from vpt.data.cases import Case
from vpt.data.label_maps import read_label
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.files import write_json, write_text
from vpt.readers import Naming, reader_of
from vpt.scores.continual import mask_score
from vpt.use.archives import save_labels
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

Masks = dict[str, np.ndarray]  # label -> where it is


class MasksAtOnce(Learner):
    """Trains one run on all tasks, for as many epochs as they have together: what one after another could come to.

    A label of another task that it finds counts against it, where the task is not told. Its folder keeps the masks of
    all tasks, numbered alike.
    """

    def __init__(self, tasks: Sequence[MaskTask], protocol: Protocol, seed: int, out: Path, cache: Path):
        self.tasks, self.protocol, self.seed, self.out, self.cache = tasks, protocol, seed, out, cache
        self.segmenter: Segmenter | None = None
        self._answers: dict[tuple[str, str], tuple[Masks, Masks]] = {}

    def learn(self, task: MaskTask) -> None:
        """After the last task, all of them."""
        if task is not self.tasks[-1]:
            return
        epochs = len(self.tasks) * self.protocol.settings.get("train.epochs", TrainConfig().epochs)
        values = {
            "task": "segmentation",
            "data": {"path": str(put_together(self.tasks, self.out / "data"))},
            "prompts": self.protocol.prompts_of(JOINT),
        }
        overrides = {**self.protocol.settings, "seed": self.seed, "train.epochs": epochs}
        run = train(
            load_config(values, overrides),
            self.out / "all",
            resume=True,
            cache=self.cache / JOINT,
            brief=True,
            alone=True,
        )
        found = load(run, self.protocol.settings.get("device", "auto"))
        assert isinstance(found, Segmenter)
        self.segmenter = found

    def scores(self, task: MaskTask, *, told: bool) -> dict[str, float]:
        """`mask_score` of each test case by its name, among the labels of all tasks, or those of its own."""
        own = set(task.dataset.labels.values())
        scores = {}
        for case in task.tested:
            found, truth = self._answer(task, case)
            scores[case.name] = mask_score({name: at for name, at in found.items() if name in own or not told}, truth)
        return scores

    def _answer(self, task: MaskTask, case: Case) -> tuple[Masks, Masks]:
        """What is found and what is there, asked for once."""
        assert self.segmenter is not None
        key = task.name, case.name
        if key not in self._answers:
            with of_any_task():
                scan = self.segmenter.prepare(case.scan, force=True)
            found = by_name(self.segmenter.labels_of(scan), self.segmenter.labels)
            self._answers[key] = found, true_masks(task, case, scan.grid)
        return self._answers[key]


def put_together(tasks: Sequence[MaskTask], folder: Path) -> Path:
    """The training and validation cases of all tasks as one data set: a list in `folder`, with masks numbered alike.

    Labels of one name are one label. Images stay where they are.

    Raises:
        VptError: of what a list cannot say: several series in a folder, voxels that do not count.
    """
    labels = {task.name: task.dataset.labels for task in tasks}
    ids = common_ids(labels)
    lines: list[str] = []
    sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    annotated: dict[str, list[str]] = {}
    patients: dict[str, str] = {}
    for task in tasks:
        for side, names in (("train", task.splits.train), ("val", task.splits.val)):
            for case in map(task.dataset.case, names):
                name = f"{task.name}__{case.name}"
                mask = _renumbered(task, case, ids[task.name], folder / "masks" / name)
                beside = mask.relative_to(folder).as_posix()
                lines.append(json.dumps({"case": name, **_images(task, case), "mask": beside}))
                sides[side].append(name)
                known = task.dataset.labels if case.annotated is None else case.annotated
                annotated[name] = [task.dataset.labels[label] for label in sorted(known) if label]
                patients[name] = f"{task.name}/{task.dataset.patient(case.name)}"
    numbers = {name: label for label, name in common_labels(labels).items()}
    channels = {str(number): name for number, name in enumerate(tasks[0].dataset.channels)}
    described = {"labels": numbers, "annotated": annotated, "patients": patients}
    if tasks[0].dataset.kind == "volumes":
        described["channel_names"] = channels
    write_text(folder / "cases.jsonl", "\n".join(lines) + "\n")
    write_json(folder / "split.json", sides)
    write_json(folder / "dataset.json", described)
    return folder / "cases.jsonl"


def _images(task: MaskTask, case: Case) -> dict[str, str]:
    """The columns of a case's files."""
    if case.series is not None or any(path.is_dir() for path in case.images):
        raise VptError(f"joint: {task.name} has DICOM series, which no list names; convert them, or leave joint out")
    if len(case.images) == 1:
        return {"image": str(case.images[0].resolve())}
    named = zip(task.dataset.channels, case.images, strict=True)
    return {f"image_{channel}": str(path.resolve()) for channel, path in named}


def _renumbered(task: MaskTask, case: Case, ids: dict[int, int], path: Path) -> Path:
    """The file of a case's mask in the ids of all tasks; path: without its ending."""
    if task.dataset.ignores:
        raise VptError(
            f"joint: {task.name} has voxels that count nowhere (ignore), which masks of several sets cannot say alike; "
            "leave joint out"
        )
    reader = reader_of(case.scan)
    label = read_label(case.label, list(task.dataset.labels), reader.grid(), case.name)
    mask = np.zeros(label.array.shape, np.min_scalar_type(max(ids.values())))
    for own, common in ids.items():
        mask[label.array == own] = common
    path = path.with_name(path.name + reader.mask_endings[0])
    save_labels(path, reader.mask_as("own", mask, Naming(task.dataset.labels, {})))  # anew: labels may have changed
    return path

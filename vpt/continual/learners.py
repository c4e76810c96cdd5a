"""Who learns a sequence of tasks: prompts that are trained with every task, or sums of frozen features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vpt.building import load_encoder
from vpt.config import load_config
from vpt.config.training import TrainConfig
from vpt.continual.gradient_free import NearestMean, RanPac
from vpt.continual.protocol import GRADIENT_FREE, JOINT, Protocol
from vpt.continual.tasks import Task
from vpt.data.labelled import Example
from vpt.data.plan import Plan
from vpt.data.slice_stacks import prepare_stacks, stacks_folder
from vpt.engine.run import train
from vpt.engine.setup import Setup, prepare_setup
from vpt.machine.memory import inference_batch
from vpt.model import Below, Output, frozen_query, numbers_per_image
from vpt.progress import bar
from vpt.tasks.batch import Batch
from vpt.tasks.classification import classify_stacks
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier
from vpt.use.load import load

OWN: dict[str, Any] = {"train.augment": "none"}  # unless a protocol says otherwise


class Learner(ABC):
    """Learns tasks in their order, and names the classes of test cases. Keeps no image of a task."""

    @abstractmethod
    def learn(self, task: Task) -> None:
        """The next task, from its training cases."""

    def scores(self, task: Task, *, told: bool) -> dict[str, float]:
        """Of each test case, by its name, 1 where the answer is its class, else 0."""
        pairs = zip(self.answers(task, told=told), task.labels(task.tested), strict=True)
        return {case.name: float(said == truth) for case, (said, truth) in zip(task.tested, pairs, strict=True)}

    @abstractmethod
    def answers(self, task: Task, *, told: bool) -> list[str]:
        """The class of each test case, among all that were learned; told: among those of its task."""


def make_learner(method: str, tasks: Sequence[Task], protocol: Protocol, seed: int, out: Path, cache: Path) -> Learner:
    """out: a folder for this method's runs; cache: for prepared images, shared by all methods."""
    if method in GRADIENT_FREE:
        return OnFeatures(method, tasks[0], protocol, seed, cache)
    if method == JOINT:
        return AllAtOnce(tasks, protocol, seed, out, cache)
    return OneByOne(method, protocol, seed, out, cache)


class OneByOne(Learner):
    """Trains a run for every task, each going on from the one before."""

    def __init__(self, method: str, protocol: Protocol, seed: int, out: Path, cache: Path):
        self.method, self.protocol, self.seed, self.out, self.cache = method, protocol, seed, out, cache
        self.runs: list[Path] = []
        self.classifier: Classifier | None = None

    def learn(self, task: Task) -> None:
        run = self.out / f"{len(self.runs) + 1}"
        values: dict[str, Any] = {"data": {"path": str(task.path), "only": list(task.classes)}}
        values["start"] = {"task": task.name}
        if self.runs:
            values["start"] |= {"path": str(self.runs[-1]), "adds": True}
        else:
            values["prompts"] = self.protocol.prompts_of(self.method)
        self._train(values, run, {})

    def _train(self, values: dict[str, Any], run: Path, own: dict[str, Any]) -> None:
        overrides = {**OWN, **self.protocol.settings, "seed": self.seed, **own}
        self.runs.append(
            train(load_config(values, overrides), run, resume=True, cache=self.cache, brief=True, alone=True)
        )
        found = load(run, self.protocol.settings.get("device", "auto"))
        assert isinstance(found, Classifier)
        self.classifier = found

    def answers(self, task: Task, *, told: bool) -> list[str]:
        classifier = self.classifier
        assert classifier is not None
        stacks = prepared(task, task.tested, classifier.plan, self.cache)
        known = task.name if told and classifier.tasks else None
        found = classifier.probabilities(stacks, task=known)
        return named(found, classifier.classes, task.classes if told else None)


class AllAtOnce(OneByOne):
    """Trains once, on all tasks, for as many epochs as they have together: what one after another could come to."""

    def __init__(self, tasks: Sequence[Task], protocol: Protocol, seed: int, out: Path, cache: Path):
        super().__init__(JOINT, protocol, seed, out, cache)
        self.tasks, self.learned = tasks, 0

    def learn(self, task: Task) -> None:
        self.learned += 1
        if self.learned == len(self.tasks):
            classes = [name for each in self.tasks for name in each.classes]
            data = {"path": str(task.path), "only": classes}
            epochs = len(self.tasks) * self.protocol.settings.get("train.epochs", TrainConfig().epochs)
            values = {"data": data, "prompts": self.protocol.prompts_of(JOINT)}
            self._train(values, self.out / "all", {"train.epochs": epochs})


class OnFeatures(Learner):
    """A gradient-free control on the features of the frozen encoder, in the plan of the first task."""

    def __init__(self, method: str, first: Task, protocol: Protocol, seed: int, cache: Path):
        self.method, self.first, self.protocol, self.seed, self.cache = method, first, protocol, seed, cache
        self.sight: Sight | None = None
        self.control: NearestMean | RanPac = NearestMean()
        self.tested: dict[str, np.ndarray] = {}  # features of test cases, by task

    def learn(self, task: Task) -> None:
        self.sight = self.sight or Sight.of(self.first, self.protocol)
        features = self.sight.features(task, task.trained, self.cache)
        if self.method == "ranpac" and isinstance(self.control, NearestMean):
            self.control = RanPac(features.shape[1], self.protocol.projection, self.seed)
        self.control.learn(features, task.labels(task.trained))

    def answers(self, task: Task, *, told: bool) -> list[str]:
        assert self.sight is not None
        if task.name not in self.tested:
            self.tested[task.name] = self.sight.features(task, task.tested, self.cache)
        found = self.control.scores(self.tested[task.name])
        return named(found, self.control.classes, task.classes if told else None)


class FrozenFeatures(nn.Module):
    """An encoder without prompts: images (B, 1, 3, S, S) in [0, 1] -> (B, C), its own feature of each."""

    def __init__(self, setup: Setup):
        super().__init__()
        self.backbone = load_encoder(setup.config.backbone, setup.plan.image_size)
        self.normalise = Normalise(self.backbone.spec, None)

    def forward(self, batch: Batch) -> Output:
        images = self.normalise(batch["images"].flatten(0, 1))
        return Output(frozen_query(self.backbone, Below(0, self.backbone.embed(images))))


class Sight:
    """How the first task's plan and the encoder of the settings see images."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.forward = FrozenFeatures(setup).eval().to(setup.device)

    @classmethod
    def of(cls, task: Task, protocol: Protocol) -> Sight:
        values = {"data": {"path": str(task.path), "only": list(task.classes)}}
        return cls(prepare_setup(load_config(values, {**OWN, **protocol.settings})))

    def features(self, task: Task, examples: Sequence[Example], cache: Path) -> np.ndarray:
        """(N, C) float32."""
        stacks = prepared(task, examples, self.setup.plan, cache)
        images = inference_batch(
            numbers_per_image(self.forward.backbone.spec, self.setup.plan.image_size), self.setup.device
        )
        found: np.ndarray = classify_stacks(self.forward, stacks, self.setup.device, images=images).numpy()
        return found


def prepared(task: Task, examples: Sequence[Example], plan: Plan, cache: Path) -> np.ndarray:
    """(N, 1, 3, size, size) uint8, as the plan makes them."""
    place = stacks_folder(cache, task.dataset.source, examples, plan)
    with bar(f"preparing {task.name}") as tick:
        return prepare_stacks(examples, plan, place / "stacks.npy", tick)


def named(scores: np.ndarray, classes: Sequence[str], among: Sequence[str] | None) -> list[str]:
    """Scores (N, K) of these classes -> the name of the largest in each row, of those `among` it may be."""
    columns = [k for k, name in enumerate(classes) if among is None or name in among]
    return [classes[columns[k]] for k in scores[:, columns].argmax(1)]

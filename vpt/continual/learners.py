"""Who learns a sequence of classes: prompts that are trained with every task, or sums of frozen features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.config import Config, load_config
from vpt.config.training import TrainConfig
from vpt.continual.gradient_free import NearestMean, RanPac
from vpt.continual.learner import Learner
from vpt.continual.protocol import ADAPTED, JOINT, Protocol
from vpt.continual.sight import Sight, prepared
from vpt.continual.tasks import Task
from vpt.data.labelled import Example
from vpt.engine.run import train
from vpt.engine.setup import choose_sides
from vpt.use.classifier import Classifier
from vpt.use.load import load
from vpt.vocabulary import Precision

OWN: dict[str, Any] = {"train.augment": "none"}  # unless a protocol says otherwise


class OfClasses(Learner):
    """Names the classes of test cases. Keeps no image of a task."""

    def scores(self, task: Task, *, told: bool) -> dict[str, float]:
        """Of each test case, by its name, 1 where the answer is its class, else 0."""
        pairs = zip(self.answers(task, told=told), task.labels(task.tested), strict=True)
        return {case.name: float(said == truth) for case, (said, truth) in zip(task.tested, pairs, strict=True)}

    @abstractmethod
    def answers(self, task: Task, *, told: bool) -> list[str]:
        """The class of each test case, among all that were learned; told: among those of its task."""


class Trained(OfClasses):
    """Trains runs, in `out`; cache: for prepared images."""

    def __init__(self, method: str, protocol: Protocol, seed: int, out: Path, cache: Path):
        self.method, self.protocol, self.seed, self.out, self.cache = method, protocol, seed, out, cache

    def train(self, values: dict[str, Any], name: str, own: Mapping[str, Any] | None = None) -> Path:
        """A run called so, of that config; own: what goes before the protocol's settings."""
        overrides = {**OWN, **self.protocol.settings, "seed": self.seed, **(own or {})}
        run = self.out / name
        return train(load_config(values, overrides), run, resume=True, cache=self.cache, brief=True, alone=True)

    def loaded(self, run: Path, precision: Precision = "auto") -> Classifier:
        found = load(run, self.protocol.settings.get("device", "auto"), precision=precision)
        assert isinstance(found, Classifier)
        return found


class OneByOne(Trained):
    """Trains a run for every task, each going on from the one before."""

    def __init__(self, method: str, protocol: Protocol, seed: int, out: Path, cache: Path):
        super().__init__(method, protocol, seed, out, cache)
        self.runs: list[Path] = []
        self.classifier: Classifier | None = None

    def learn(self, task: Task) -> None:
        values = first_values(task, self.protocol.prompts_of(self.method))
        if self.runs:
            del values["prompts"]  # they go on as they are
            values["start"] |= {"path": str(self.runs[-1]), "adds": True}
        self.take(self.train(values, f"{len(self.runs) + 1}"))

    def take(self, run: Path) -> None:
        """Answer by it."""
        self.runs.append(run)
        self.classifier = self.loaded(run)

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
            self.take(self.train(values, "all", {"train.epochs": epochs}))


class OnFeatures(Trained):
    """A control without a gradient, on features in the plan of the first task.

    They are those of the frozen encoder; or, as RanPAC is published (McDonnell et al., NeurIPS 2023, algorithm 1), of
    the encoder with prompts that were trained on the first task and stay as that has left them.
    """

    def __init__(self, method: str, protocol: Protocol, seed: int, out: Path, cache: Path):
        super().__init__(method, protocol, seed, out, cache)
        self.sight: Sight | None = None
        self.control: NearestMean | RanPac = NearestMean()
        self.tested: dict[str, np.ndarray] = {}  # features of test cases, by task

    def learn(self, task: Task) -> None:
        self.sight = self.sight or self._sight(task)
        trained = self._trained(task)
        features = self.sight.features(task, trained, self.cache)
        if self.method != "ncm" and isinstance(self.control, NearestMean):
            self.control = RanPac(features.shape[1], self.protocol.projection, self.seed)
        self.control.learn(features, task.labels(trained))

    def _trained(self, task: Task) -> list[Example]:
        """The cases that a run would train on: as `data.use_val`, `data.shots` and `data.fold` of the protocol say."""
        return [task.dataset.case(name) for name in choose_sides(self._config(task), task.dataset).train]

    def _config(self, task: Task) -> Config:
        overrides = {**OWN, **self.protocol.settings, "seed": self.seed}
        return load_config(first_values(task, {"method": "none"}), overrides)

    def _sight(self, first: Task) -> Sight:
        if self.method == ADAPTED:
            run = self.train(first_values(first, self.protocol.prompts_of(ADAPTED)), "1")
            return Sight.trained(self.loaded(run, "32-true"))
        return Sight.frozen(self._config(first))

    def answers(self, task: Task, *, told: bool) -> list[str]:
        assert self.sight is not None
        if task.name not in self.tested:
            self.tested[task.name] = self.sight.features(task, task.tested, self.cache)
        found = self.control.scores(self.tested[task.name])
        return named(found, self.control.classes, task.classes if told else None)


def first_values(task: Task, prompts: dict[str, Any]) -> dict[str, Any]:
    """The config of a run that learns a task alone."""
    data = {"path": str(task.path), "only": list(task.classes)}
    return {"data": data, "start": {"task": task.name}, "prompts": prompts}


def named(scores: np.ndarray, classes: Sequence[str], among: Sequence[str] | None) -> list[str]:
    """Scores (N, K) of these classes -> the name of the largest in each row, of those `among` it may be."""
    columns = [k for k, name in enumerate(classes) if among is None or name in among]
    return [classes[columns[k]] for k in scores[:, columns].argmax(1)]

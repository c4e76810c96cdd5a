"""A run that learns to classify images or volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from logging import Logger
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vpt.artifact import read_artifact, save_artifact
from vpt.data.labelled import Example, LabelledSet
from vpt.data.looked_for import looked_for_doubts
from vpt.data.slices.slice_stacks import (
    StackDataset,
    StackDraw,
    StoredStacks,
    annotated_of,
    draw_stacks,
    draw_stacks_of_groups,
    prepare_stacks,
    stacks_folder,
    truth_of,
)
from vpt.data.slices.stored import Store, Viewed
from vpt.data.transforms import identity, make_augment
from vpt.engine.job import Job, worst_of
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.setup import Setup
from vpt.engine.sound import Asked
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.heads.linear import count_outputs
from vpt.machine.precision import autocast
from vpt.progress import bar
from vpt.restoring import load_trained
from vpt.scores.classes import class_scores
from vpt.tasks.answers import ClassAnswers
from vpt.tasks.batch import NamedSamples
from vpt.tasks.classification import (
    StackModel,
    StackModelOverPooled,
    StackModelOverPrefix,
    balanced_weights,
    class_loss,
    classify_stacks,
    fit_temperature,
    head_of,
    to_probabilities,
    within,
)
from vpt.tasks.frozen import FrozenPrefix, OverPrefix
from vpt.use.scored_splits import origin_in_words, report_on

SHOWN = {
    "classes": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"},
    "labels": {"auroc": "AUROC", "macro_f1": "macro F1"},
    "grades": {"quadratic_kappa": "quadratic kappa", "accuracy": "accuracy", "auroc": "AUROC"},
}
CHOOSES = {"classes": "balanced_accuracy", "labels": "auroc", "grades": "quadratic_kappa"}
LEAST_STEPS = 20  # of an epoch


class Classifying(Job):
    unit = "example"
    case_of = attrgetter("example")

    def __init__(self, run: Path, setup: Setup, cache: Path, ranks: Ranks = ALONE):
        super().__init__(run, setup, cache, ranks)
        assert isinstance(setup.dataset, LabelledSet)
        self.labelled = setup.dataset
        self.target, self.classes = self.labelled.target, self.labelled.classes
        self.score, self.shown = CHOOSES[self.target], SHOWN[self.target]
        self.choose_by_worst()

    def read(self) -> None:
        config, classes = self.setup.config, len(self.classes)
        self.examples, self.validation = self._examples("train"), self._examples("val")
        self.training, self.stacks = self._stacks("train", self.examples), self._stacks("val", self.validation)
        self.truth, self.looked = truth_of(self.validation, classes), annotated_of(self.validation, classes)
        self.columns = head_of(self.model).columns
        weights = self._weights()
        self.loss = within(self.columns, class_loss(self.target, weights, config.loss.smoothing))
        self.count = len(self.examples)
        self.batch_size = min(self.choose_batch_size(), self.count)
        self.steps = min(config.train.max_steps, max(LEAST_STEPS, math.ceil(self.count / self.batch_size)))

    def _examples(self, part: str) -> list[Example]:
        return [self.labelled.case(name) for name in getattr(self.setup.splits, part)]

    def _stacks(self, part: str, examples: list[Example]) -> np.ndarray:
        with bar(f"preparing {part} examples") as tick:
            return prepare_stacks(examples, self.setup.plan, self.place(part)[0] / "stacks.npy", tick)

    def _weights(self) -> list[float] | None:
        given = self.setup.config.loss.class_weights
        if given == "balanced":
            truth = self._own(truth_of(self.examples, len(self.classes)))
            return balanced_weights(truth, self.target, annotated=annotated_of(self.examples, len(self.classes)))
        return None if isinstance(given, str) else list(self._own(np.array(given)))

    def _own(self, of_classes: np.ndarray) -> np.ndarray:
        """The part of (..., K) that belongs to the classes that train: all, or those of the task that is added."""
        return of_classes if self.columns is None else of_classes[..., list(self.columns)]

    def choose_data(self) -> None:
        """Where the output of a frozen prefix is stored, that of the validation examples is as well."""
        super().choose_data()
        self.validated = self.stacks
        if isinstance(self.forward, OverPrefix) and self.validation:
            plain = StackDataset(self.stacks, self.truth, identity, views=1)
            self.validated = self.store("val", plain, np.arange(plain.count), self.forward).rows()

    @property
    def asked(self) -> Asked:
        plan = self.setup.plan
        image = (plan.slices or 1, plan.inputs, plan.image_size, plan.image_size)
        return Asked(image, (count_outputs(len(self.classes), self.target),))

    @property
    def fixed(self) -> bool:
        return self.setup.config.train.plain

    def viewed(self, views: int) -> StackDataset:
        train = self.setup.config.train
        augment = make_augment(train.augment, self.setup.plan.around, train.mirror)
        truth, annotated = truth_of(self.examples, len(self.classes)), annotated_of(self.examples, len(self.classes))
        return StackDataset(self.training, truth, augment, views=views, annotated=annotated)

    def samples(self, viewed: Viewed, store: Store | None) -> NamedSamples:
        assert isinstance(viewed, StackDataset)
        labels = ["truth"] if viewed.annotated is None else ["truth", "annotated"]
        if store is None:
            return NamedSamples(viewed, ["images", *labels])
        return NamedSamples(StoredStacks(viewed, store), ["rows", *labels])

    def on_images(self) -> StackModel:
        return StackModel(self.model)

    def over_prefix(self, prefix: FrozenPrefix) -> OverPrefix:
        """Of an encoder that is frozen whole a vector per slice, in single precision, is all that the head needs,
        unless it pools in a way of its own, which may train.
        """
        pools = type(head_of(self.model)).pool is not ClassifyHead.pool
        return StackModelOverPooled(self.model) if prefix.whole and not pools else StackModelOverPrefix(prefix)

    def images_to_store(self, training: int) -> int:
        return (training + len(self.validation)) * (self.setup.plan.slices or 1)

    def place(self, part: str) -> tuple[Path, Sequence[str]]:
        """What decides the images decides the folder."""
        return stacks_folder(self.cache, self.labelled.source, self._examples(part), self.setup.plan), []

    def doubts(self) -> list[str]:
        found = super().doubts()
        if self.setup.config.train.calibrate and not self.validates:
            found.append("train.calibrate: no validation case to fit a temperature to, so the logits stay as they are")
        sides = {"training": self.setup.splits.train, "validation": self.setup.splits.val}
        return [*found, *looked_for_doubts(self.labelled, sides)]

    def draw(self, epoch: int) -> list[list[StackDraw]]:
        given = {"steps": self.steps, "batch_size": self.batch_size, "seed": self.setup.config.seed, "epoch": epoch}
        groups = self.balanced
        return draw_stacks(self.count, **given) if groups is None else draw_stacks_of_groups(groups, **given)

    def answers(self) -> ClassAnswers:
        if self.labelled.is_partly_annotated:
            raise VptError(
                "fair.method=reprogram: images are annotated for some of the labels only, so answers cannot be "
                "compared between groups; take balanced or group_dro"
            )
        return ClassAnswers(self.target, len(self.classes))

    def names(self, samples: Sequence[StackDraw]) -> list[str]:
        return [self.examples[draw.example].name for draw in samples]

    def images(self) -> Iterator[Tensor]:
        normalise = self.normalise()
        for start in range(0, self.count, self.batch_size):
            batch = torch.from_numpy(self.training[start : start + self.batch_size].astype(np.float32) / 255)
            yield normalise(batch.flatten(0, 1).to(self.setup.device))

    def validate(self, forward: nn.Module) -> dict[str, float]:
        """Of a task that is added, among its own classes: among all of them the best epoch would be that which forgets
        the others most.
        """
        forward.eval()
        logits = self._logits(forward, self.validated)
        logits = logits if self.columns is None else logits[:, list(self.columns)]
        found = to_probabilities(logits, self.target).numpy()
        scores = class_scores(found, self._own(self.truth).astype(bool), self.target, self.looked)
        if self.choosing:
            chooses = CHOOSES[self.target]
            own = [self._score(found, places, chooses) for places in self.choosing.values()]
            scores[worst_of(chooses)] = float(np.nanmin(own)) if np.isfinite(own).any() else math.nan
        return {key: 0.0 if math.isnan(scores[key]) else scores[key] for key in self.shown}

    def _score(self, found: np.ndarray, places: Sequence[int], score: str) -> float:
        """Of some of the validation examples; NaN where they do not define it."""
        looked = None if self.looked is None else self.looked[places]
        return class_scores(found[places], self.truth[places].astype(bool), self.target, looked)[score]

    def _logits(self, forward: nn.Module, stacks: np.ndarray) -> Tensor:
        """Of stacks or stored rows, as `classify_stacks`; each batch by one of the ranks."""
        size = max(1, self.inference_batch // stacks.shape[1])
        batches = [stacks[start : start + size] for start in range(0, len(stacks), size)]
        device, images = self.setup.device, self.inference_batch
        made = [classify_stacks(forward, batch, device, images=images) for batch in self.ranks.dealt(batches)]
        return torch.cat(self.ranks.collected(made, len(batches)))

    def finish(self, log: Logger) -> None:
        """summary.json, cases.csv, confusion.png, reliability.png; the temperature, where it is asked for."""
        setup, run = self.setup, self.run
        best = read_artifact(run / "best.safetensors")
        load_trained(self.model, best.tensors, best.path)
        # from the images: what may be stored is rounded, and these scores are told to people
        with autocast(self.precision, setup.device):
            whole = self.on_images().to(setup.device).eval()
            logits = classify_stacks(whole, self.stacks, setup.device, images=self.inference_batch)
        temperature = 1.0
        if setup.config.train.calibrate:
            looked = None if self.looked is None else torch.from_numpy(self.looked)
            fitted = fit_temperature(logits, torch.from_numpy(self.truth), self.target, looked)
            temperature = 1.0 if fitted is None else fitted
            save_artifact(
                best.path,
                self.model,
                config=setup.config,
                plan=setup.plan,
                labels=best.labels,
                scores=best.scores,
                temperature=temperature,
            )
            if fitted is None:
                log.warning(
                    "train.calibrate: no temperature is the best of those from 0.05 to 20, as where every validation "
                    "case is right, so the logits stay as they are; validate on more cases"
                )
            else:
                log.info(f"temperature {temperature:.3g}, fitted to the validation split")
        probabilities = to_probabilities(logits, self.target, temperature).numpy()
        title = f"{run.name}: validation split"
        weights = origin_in_words(self.model)
        report_on(self.labelled, self.validation, probabilities, title, weights).save(run / "validation")

    def keep_familiar(self) -> None:
        """Nothing is kept where a run classifies: its probabilities say how sure an answer is."""

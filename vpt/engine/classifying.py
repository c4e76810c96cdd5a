"""A run that learns to classify images or volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from logging import Logger
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vpt.artifact import load_trained, read_artifact, save_artifact
from vpt.building import build_model
from vpt.data.labelled import Example, LabelledSet
from vpt.data.slice_stacks import (
    StackDataset,
    StackDraw,
    StoredStacks,
    draw_stacks,
    prepare_stacks,
    stacks_folder,
    truth_of,
)
from vpt.data.stored import Store
from vpt.data.transforms import identity, make_augment
from vpt.engine.job import Job
from vpt.engine.setup import Setup
from vpt.engine.storing import Once, make_store, views_to_store
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.machine.precision import autocast
from vpt.progress import bar
from vpt.scores.classes import class_scores
from vpt.tasks.classification import (
    OnFeatures,
    OnSlices,
    OnTokens,
    balanced_weights,
    class_loss,
    classify_stacks,
    fit_temperature,
    to_probabilities,
)
from vpt.tasks.frozen import FrozenPart
from vpt.tasks.images import Normalise
from vpt.use.runs import report_on
from vpt.words import listed

SHOWN = {
    "classes": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"},
    "labels": {"auroc": "AUROC", "macro_f1": "macro F1"},
    "grades": {"quadratic_kappa": "quadratic kappa", "accuracy": "accuracy", "auroc": "AUROC"},
}
CHOOSES = {"classes": "balanced_accuracy", "labels": "auroc", "grades": "quadratic_kappa"}
LEAST_STEPS = 20  # of an epoch


class Classifying(Job):
    unit = "examples"

    def __init__(self, run: Path, setup: Setup, cache: Path):
        super().__init__(run, setup, cache)
        assert isinstance(setup.dataset, LabelledSet)
        config, plan, self.labelled = setup.config, setup.plan, setup.dataset
        self.target, self.classes = self.labelled.target, self.labelled.classes
        self.score, self.shown = CHOOSES[self.target], SHOWN[self.target]
        torch.manual_seed(config.seed)
        self.model = build_model(config, plan, len(self.classes))
        examples, self.validation = self._examples("train"), self._examples("val")
        truth = truth_of(examples, len(self.classes))
        self.truth = truth_of(self.validation, len(self.classes))
        self.training, self.stacks = self._stacks("train", examples), self._stacks("val", self.validation)
        self.loss = class_loss(self.target, self._weights(truth), config.loss.smoothing)
        self.batch_size = min(self.choose_batch_size(), len(examples))
        self.count = len(examples)
        self.steps = min(config.train.max_steps, max(LEAST_STEPS, math.ceil(self.count / self.batch_size)))
        self._choose_data(truth)

    @property
    def head(self) -> ClassifyHead:
        assert isinstance(self.model.head, ClassifyHead)
        return self.model.head

    def _examples(self, part: str) -> list[Example]:
        return [self.labelled.case(name) for name in getattr(self.setup.splits, part)]

    def _stacks(self, part: str, examples: list[Example]) -> np.ndarray:
        with bar(f"preparing {part} examples") as tick:
            return prepare_stacks(examples, self.setup.plan, self._place(part) / "stacks.npy", tick)

    def _place(self, part: str) -> Path:
        return stacks_folder(self.cache, self.labelled.source, self._examples(part), self.setup.plan)

    def _choose_data(self, truth: np.ndarray) -> None:
        """The data set and what is validated on; where it can be stored, what the frozen blocks make of them.

        Of an encoder that is frozen whole that is a vector per slice in single precision.
        """
        train, plan, spec = self.setup.config.train, self.setup.plan, self.model.backbone.spec
        fixed = train.augment == "none"
        views = 1 if fixed else train.views
        dataset = StackDataset(self.training, truth, make_augment(train.augment, plan.fill), views=views)
        part = FrozenPart(self.model, self.model.first_trained_block())
        whole = part.first == spec.depth
        numbers = views_to_store(dataset, self.draw, train.epochs)
        values = 2 * spec.blocks[-1].width if whole else part.size  # of half precision
        slices = ((len(numbers) if views else self.count) + len(self.validation)) * (plan.slices or 1)
        self.once = Once(part.first, spec.depth, views, fixed, slices * values * 2 / 1e9, train.cache_gb, "example")
        self.on_slices = OnSlices(self.model)
        self.forward: nn.Module = self.on_slices
        self.dataset: Dataset = dataset
        self.validated = self.stacks
        if self.once.stored:
            self.forward = OnFeatures(self.model) if whole else OnTokens(part)
            self.dataset = StoredStacks(dataset, self._store("train", dataset, numbers))
            if self.validation:
                plain = StackDataset(self.stacks, self.truth, identity, views=1)
                self.validated = self._store("val", plain, np.arange(plain.count)).rows()

    def _store(self, part: str, dataset: StackDataset, numbers: np.ndarray) -> Store:
        tokens = self.forward if isinstance(self.forward, OnTokens) else None
        return make_store(
            self.setup,
            self.model,
            self._place(part),
            dataset,
            numbers,
            tokens.rows if tokens else self.on_slices.pool,
            half=tokens is not None,
            kind=f"block{self.once.first}" if tokens else f"pooled{int(self.head.first_token)}",
            content=[],  # it decides the folder
            batch_size=max(1, self.images_at_once // (self.setup.plan.slices or 1)),
            title=f"encoding {part} examples",
        )

    def _weights(self, truth: np.ndarray) -> list[float] | None:
        given = self.setup.config.loss.class_weights
        if given == "balanced":
            return balanced_weights(truth, self.target)
        if isinstance(given, str):
            return None
        if len(given) != len(self.classes):
            raise VptError(
                f"loss.class_weights: {len(given)} weights for {len(self.classes)} classes ({listed(self.classes)})"
            )
        return list(given)

    def doubts(self) -> list[str]:
        found = self.once.doubts()
        if self.setup.config.train.calibrate and not self.validates:
            found.append("train.calibrate: no validation case to fit a temperature to, so the logits stay as they are")
        return found

    def draw(self, epoch: int) -> list[list[StackDraw]]:
        seed = self.setup.config.seed
        return draw_stacks(self.count, steps=self.steps, batch_size=self.batch_size, seed=seed, epoch=epoch)

    def images(self) -> Iterator[Tensor]:
        normalise = Normalise(self.model.backbone.spec)
        for start in range(0, self.count, self.batch_size):
            batch = torch.from_numpy(self.training[start : start + self.batch_size].astype(np.float32) / 255)
            yield normalise(batch.flatten(0, 1))

    def validate(self, forward: nn.Module) -> dict[str, float]:
        forward.eval()
        logits = classify_stacks(forward, self.validated, self.setup.device, images=self.inference_batch)
        found = class_scores(to_probabilities(logits, self.target).numpy(), self.truth.astype(bool), self.target)
        return {key: 0.0 if math.isnan(found[key]) else found[key] for key in self.shown}

    def finish(self, log: Logger) -> None:
        """summary.json, cases.csv, confusion.png, reliability.png; the temperature, where it is asked for."""
        setup, run = self.setup, self.run
        best = read_artifact(run / "best.safetensors")
        load_trained(self.model, best.tensors, best.path)
        # from the images: what may be stored is rounded, and these scores are told to people
        with autocast(self.precision, setup.device):
            logits = classify_stacks(
                self.on_slices.to(setup.device).eval(), self.stacks, setup.device, images=self.inference_batch
            )
        temperature = 1.0
        if setup.config.train.calibrate:
            temperature = fit_temperature(logits, torch.from_numpy(self.truth), self.target)
            save_artifact(
                best.path,
                self.model,
                config=setup.config,
                plan=setup.plan,
                labels=best.labels,
                scores=best.scores,
                temperature=temperature,
            )
            log.info(f"temperature {temperature:.3g}, fitted to the validation split")
        probabilities = to_probabilities(logits, self.target, temperature).numpy()
        title = f"{run.name}: validation split"
        report_on(self.labelled, self.validation, probabilities, title).save(run / "validation")

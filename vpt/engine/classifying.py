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

from vpt.artifact import build_model, load_trained, read_artifact, save_artifact
from vpt.class_metrics import class_scores
from vpt.data.cases import listed
from vpt.data.labelled import Example, LabelledSet
from vpt.data.plan import Plan
from vpt.data.slice_stacks import (
    StackDataset,
    StackDraw,
    StoredDataset,
    draw_stacks,
    prepare_stacks,
    stacks_folder,
    truth_of,
)
from vpt.data.transforms import make_augment
from vpt.engine.job import Job
from vpt.engine.setup import Setup
from vpt.errors import VptError
from vpt.files import atomic
from vpt.heads import ClassifyHead
from vpt.precision import autocast
from vpt.progress import bar
from vpt.runs import report_on
from vpt.tasks.classification import (
    OnFeatures,
    OnSlices,
    OnTokens,
    balanced_weights,
    class_loss,
    classify_stacks,
    fit_temperature,
    forward_stacks,
    to_probabilities,
)
from vpt.tasks.images import Normalise

SHOWN = {
    "classes": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"},
    "labels": {"auroc": "AUROC", "macro_f1": "macro F1"},
    "grades": {"quadratic_kappa": "quadratic kappa", "accuracy": "accuracy", "auroc": "AUROC"},
}
CHOOSES = {"classes": "balanced_accuracy", "labels": "auroc", "grades": "quadratic_kappa"}
LEAST_STEPS = 20  # of an epoch


class Classifying(Job):
    unit = "examples"
    stored_gb = 0.0

    def __init__(self, run: Path, setup: Setup, cache: Path):
        super().__init__(run, setup, cache)
        assert isinstance(setup.dataset, LabelledSet)
        config, plan, self.labelled = setup.config, setup.plan, setup.dataset
        self.target, self.classes = self.labelled.target, self.labelled.classes
        self.score, self.shown = CHOOSES[self.target], SHOWN[self.target]
        torch.manual_seed(config.seed)
        self.model = build_model(config, plan, len(self.classes))
        self.on_slices = OnSlices(self.model)
        examples, self.validation = self._examples("train"), self._examples("val")
        truth = truth_of(examples, len(self.classes))
        self.truth = truth_of(self.validation, len(self.classes))
        self.training, self.stacks = self._stacks("train", examples), self._stacks("val", self.validation)
        self.first = self._first_block(plan, len(examples) + len(self.validation))
        if self.first == 0:
            self.forward: nn.Module = self.on_slices
            self.dataset: Dataset = StackDataset(self.training, truth, make_augment(config.train.augment, plan.fill))
            self.validated = self.stacks
        else:  # the blocks below see every example once, whatever the number of epochs
            whole = self.first == self.model.backbone.spec.depth
            self.forward = OnFeatures(self.model) if whole else OnTokens(self.model, self.first)
            self.dataset = StoredDataset(self._stored("train", self.training), truth)
            self.validated = self._stored("val", self.stacks) if self.validation else self.stacks
        self.loss = class_loss(self.target, self._weights(truth), config.loss.smoothing)
        self.batch_size = min(self.choose_batch_size(), len(examples))
        self.count = len(examples)
        self.steps = min(config.train.max_steps, max(LEAST_STEPS, math.ceil(self.count / self.batch_size)))

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

    def _first_block(self, plan: Plan, examples: int) -> int:
        """How many blocks need to run only once per example: none where images are augmented.

        Where tokens would have to be stored for that, and would take more than `train.cache_gb`, none as well.
        """
        config, spec = self.setup.config.train, self.model.backbone.spec
        first = self.model.first_trained_block() if config.augment == "none" else 0
        if not 0 < first < spec.depth:
            return first
        tokens = spec.prefix + spec.grid[0] * spec.grid[1]
        self.stored_gb = examples * (plan.slices or 1) * tokens * spec.width * 2 / 1e9
        return first if self.stored_gb <= config.cache_gb else 0

    def _stored(self, part: str, stacks: np.ndarray) -> np.ndarray:
        """What the frozen blocks make of every example, computed once per cache and encoder.

        (N, S, C) float32 of the whole encoder, else tokens (N, S, R + patches, C) float16.

        Raises:
            VptError: tokens that half precision does not hold.
        """
        module = self.forward if isinstance(self.forward, OnTokens) else None
        kind = f"block{self.first}" if module else f"pooled{int(self.head.first_token)}"
        path = self._place(part) / f"{self.model.backbone.sha256[:16]}.{kind}.npy"
        if not path.exists():
            (module or self.on_slices).to(self.setup.device).eval()
            make = module.prefix if module else self.on_slices.pool
            with bar(f"encoding {part} examples") as tick, atomic(path) as temporary:
                stored = None
                done = 0
                for batch in forward_stacks(make, stacks, self.setup.device, tick):
                    kept = batch.numpy().astype(np.float16 if module else np.float32)
                    if not np.isfinite(kept).all():
                        raise VptError("tokens beyond half precision; set train.cache_gb=0 to store none")
                    if stored is None:
                        shape = (len(stacks), *kept.shape[1:])
                        stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=kept.dtype, shape=shape)
                    stored[done : done + len(kept)] = kept
                    done += len(kept)
        return np.load(path, mmap_mode="r")

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
        found, depth = [], self.model.backbone.spec.depth
        if self.setup.config.train.calibrate and not self.validates:
            found.append("train.calibrate: no validation case to fit a temperature to, so the logits stay as they are")
        if 0 < self.first < depth:
            found.append(
                f"the first {self.first} of {depth} blocks run once per example, not in every epoch: "
                f"{self.stored_gb:.2g} GB of their tokens are stored"
            )
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
        found = class_scores(
            to_probabilities(self._logits(forward), self.target).numpy(), self.truth.astype(bool), self.target
        )
        return {key: 0.0 if math.isnan(found[key]) else found[key] for key in self.shown}

    def _logits(self, forward: nn.Module) -> Tensor:
        """Of the validation examples, (N, outputs)."""
        forward.eval()
        return classify_stacks(forward, self.validated, self.setup.device)

    def finish(self, log: Logger) -> None:
        """summary.json, cases.csv, confusion.png, reliability.png; the temperature, where it is asked for."""
        setup, run = self.setup, self.run
        best = read_artifact(run / "best.safetensors")
        load_trained(self.model, best.tensors, best.path)
        with autocast(self.precision, setup.device):
            if isinstance(self.forward, OnTokens):  # what was stored is rounded, and these scores are told to people
                logits = classify_stacks(self.on_slices.to(setup.device).eval(), self.stacks, setup.device)
            else:
                logits = self._logits(self.forward.to(setup.device))
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

"""How images of tasks are seen without a head: the features of a frozen encoder, or of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vpt.backbones import Backbone
from vpt.building import load_encoder
from vpt.config import Config
from vpt.continual.tasks import Task
from vpt.data.labelled import Example
from vpt.data.plan import Plan
from vpt.data.slices.slice_stacks import prepare_stacks, stacks_folder
from vpt.engine.setup import prepare_setup
from vpt.machine.memory import inference_batch
from vpt.model import Below, Output, PromptedModel, frozen_query, numbers_per_image
from vpt.progress import bar
from vpt.tasks.batch import Batch
from vpt.tasks.classification import StackModel, classify_stacks
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier


class FrozenFeatures(nn.Module):
    """An encoder without prompts: images (B, 1, 3, S, S) in [0, 1] -> (B, C), its own feature of each."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.normalise = Normalise(backbone.spec, None)

    def forward(self, batch: Batch) -> Output:
        images = self.normalise(batch["images"].flatten(0, 1))
        return Output(frozen_query(self.backbone, Below(0, self.backbone.embed(images))))


class TrainedFeatures(nn.Module):
    """A trained model without its last layer: images (B, 1, 3, S, S) in [0, 1] -> (B, C), what its head pools."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.on_stacks = StackModel(model)

    def forward(self, batch: Batch) -> Output:
        return Output(self.on_stacks.pool(batch["images"])[0][:, 0])


@dataclass(frozen=True)
class Sight:
    """How images are prepared and seen; images: at once."""

    plan: Plan
    forward: nn.Module
    device: torch.device
    images: int

    @classmethod
    def frozen(cls, config: Config) -> Sight:
        """Seen by the frozen encoder of a config, in the plan of its data."""
        setup = prepare_setup(config)
        backbone = load_encoder(setup.config.backbone, setup.plan.image_size)
        images = inference_batch(numbers_per_image(backbone.spec, setup.plan.image_size), setup.device)
        return cls(setup.plan, FrozenFeatures(backbone).eval().to(setup.device), setup.device, images)

    @classmethod
    def trained(cls, classifier: Classifier) -> Sight:
        """Seen by a model as its training has left it."""
        return cls(classifier.plan, TrainedFeatures(classifier.model).eval(), classifier.device, classifier.batch_size)

    def features(self, task: Task, examples: Sequence[Example], cache: Path) -> np.ndarray:
        """(N, C) float32."""
        stacks = prepared(task, examples, self.plan, cache)
        found: np.ndarray = classify_stacks(self.forward, stacks, self.device, images=self.images).numpy()
        return found


def prepared(task: Task, examples: Sequence[Example], plan: Plan, cache: Path) -> np.ndarray:
    """(N, 1, 3, size, size) uint8, as the plan makes them."""
    place = stacks_folder(cache, task.dataset.source, examples, plan)
    with bar(f"preparing {task.name}") as tick:
        return prepare_stacks(examples, plan, place / "stacks.npy", tick)

"""New images and volumes: `vpt.load(run).classify(path)` gives a probability per class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from vpt.data.plan import Plan
from vpt.data.slice_stacks import prepare_stack
from vpt.data.transforms import TURNS
from vpt.machine.memory import inference_batch
from vpt.machine.precision import Chosen
from vpt.model import PromptedModel, numbers_per_image
from vpt.progress import Tick, silent
from vpt.readers import Scan, reader_of
from vpt.tasks.batch import Forward
from vpt.tasks.classification import StackModel, classify_stacks, to_probabilities
from vpt.use.inference import in_precision, in_smaller_batches, make_ready, read_scan, warn_of_header
from vpt.vocabulary import Mirror, Target


class Classifier:
    """Images or volumes -> probabilities. Deterministic, keeps no state between them.

    Made by `vpt.load`, or of a model in memory by `from_model`.
    """

    def __init__(
        self,
        model: PromptedModel,
        forward: Forward,
        plan: Plan,
        classes: Sequence[str],
        target: Target,
        device: torch.device,
        batch_size: int,
        temperature: float = 1.0,
        mirror: Mirror = "none",
    ):
        """forward: of `model`, ready for inference; classes: in the order of the probabilities; target: `classes` (one
        of them), `grades` (one of them, in an order) or `labels` (any number at once); batch_size: images at once;
        temperature: what the logits are divided by; mirror: the mirror images that are averaged with an image.
        """
        self.model = model
        self.forward = forward
        self.plan = plan
        self.classes = tuple(classes)
        self.target = target
        self.device = device
        self.batch_size = batch_size
        self.temperature = temperature
        self.turns = TURNS[mirror]

    @classmethod
    def from_model(
        cls,
        model: PromptedModel,
        plan: Plan,
        classes: Sequence[str],
        target: Target,
        device: torch.device,
        temperature: float = 1.0,
        precision: Chosen = "32-true",
        mirror: Mirror = "none",
    ) -> Self:
        """The model is made ready for inference in place, see `Segmenter.from_model`."""
        model = make_ready(model, device, precision)
        forward = in_precision(StackModel(model).eval().to(device), precision, device)
        batch_size = inference_batch(numbers_per_image(model.backbone.spec, plan.image_size), device)
        return cls(model, forward, plan, classes, target, device, batch_size, temperature, mirror)

    def classify(self, scan: Scan, *, force: bool = False) -> dict[str, float]:
        """An image's path or pixels, a NIfTI path (several for several channels) or a nibabel image -> {class: p}.

        Images of Pillow and SimpleITK and MONAI's MetaTensor are taken too.

        The probabilities sum to 1, but for `labels`, which have one each. force: only warn of values that do not look
        like those of the training. What its header leaves open is a `vpt.errors.HeaderWarning`.

        Raises:
            VptError: what the readers refuse; values that do not look like those of the training; an image of a model
                trained on volumes, and the other way round.
        """
        prepared = self.prepare(scan, force)
        warn_of_header(reader_of(scan), self.plan)
        found = self.probabilities([prepared])[0]
        return dict(zip(self.classes, found.tolist(), strict=True))

    def prepare(self, scan: Any, force: bool = False) -> np.ndarray:
        """A scan as `classify` takes it -> (S, 3, size, size) uint8, what the encoder is given."""
        return prepare_stack(read_scan(self.plan, scan, force).voxels, self.plan)

    def probabilities(self, stacks: Sequence[np.ndarray] | np.ndarray, progress: Tick = silent) -> np.ndarray:
        """Prepared scans (N, S, 3, size, size) -> (N, K)."""
        found = []
        for turned, turn in enumerate(self.turns):
            images = np.ascontiguousarray(np.flip(np.asarray(stacks), turn))
            tick = partial(_within, progress, turned, len(self.turns))
            in_batches = partial(classify_stacks, self.forward, images, self.device, tick)
            logits = in_smaller_batches("the images given", self.batch_size, in_batches)
            found.append(to_probabilities(logits, self.target, self.temperature).numpy())
        return np.mean(found, axis=0)


def _within(progress: Tick, turned: int, turns: int, done: int, total: int, note: str) -> None:
    """So far with the mirror image of that number, of so many that each have `total`."""
    progress(turned * total + done, turns * total, note)

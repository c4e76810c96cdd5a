"""New images and volumes: `vpt.load(run).classify(path)` gives a probability per class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from vpt.data.plan import Plan
from vpt.data.slices.slice_stacks import prepare_stack
from vpt.data.transforms import TURNS
from vpt.errors import VptError
from vpt.heads.by_task import ByTaskHead
from vpt.machine.memory import inference_batch
from vpt.model import PromptedModel, numbers_per_image
from vpt.progress import Tick, silent
from vpt.readers import Scan, reader_of
from vpt.tasks.batch import Forward
from vpt.tasks.classification import StackModel, classify_stacks, to_probabilities
from vpt.use.inference import InPrecision, in_smaller_batches, make_ready, read_scan, warn_of_header
from vpt.use.several import scans_in
from vpt.vocabulary import Chosen, Mirror, Target
from vpt.words import did_you_mean, listed


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
        forward = InPrecision(StackModel(model).eval().to(device), precision, device)
        batch_size = inference_batch(numbers_per_image(model.backbone.spec, plan.image_size), device)
        return cls(model, forward, plan, classes, target, device, batch_size, temperature, mirror)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Task -> its classes, of a model that has learned several one after another; else empty."""
        head = self.model.head
        return head.learned if isinstance(head, ByTaskHead) else {}

    def classify(
        self, scan: Scan, *, force: bool = False, task: str | None = None
    ) -> dict[str, float] | list[dict[str, float]]:
        """An image's path or pixels, a NIfTI path (several for several channels) or a nibabel image -> {class: p}.

        Images of Pillow and SimpleITK and MONAI's MetaTensor are taken too. A list of scans -> a list of answers, from
        batches of them. (To a model of several channels a list is one scan, and a list of lists several.)

        The probabilities sum to 1, but for `labels`, which have one each. force: only warn of values that do not look
        like those of the training; task: which of `tasks` the image is of, where that is known: then it is told apart
        among that task's classes alone. What its header leaves open is a `vpt.errors.HeaderWarning`.

        Raises:
            VptError: what the readers refuse; values that do not look like those of the training; an image of a model
                trained on volumes, and the other way round.
        """
        several = scans_in(scan, self.plan)
        scans = [scan] if several is None else several
        rows: list[np.ndarray] = []
        for start in range(0, len(scans), self.batch_size):
            stacks = []
            for one in scans[start : start + self.batch_size]:
                stacks.append(self.prepare(one, force))
                warn_of_header(reader_of(one), self.plan)
            rows.extend(self.probabilities(stacks, task=task))
        answers = [dict(zip(self.classes, row.tolist(), strict=True)) for row in rows]
        if task is not None:
            answers = [{name: found[name] for name in self.tasks[task]} for found in answers]
        return answers[0] if several is None else answers

    def prepare(self, scan: Any, force: bool = False) -> np.ndarray:
        """A scan as `classify` takes it -> (S, 3, size, size) uint8, what the encoder is given."""
        return prepare_stack(read_scan(self.plan, scan, force).voxels, self.plan)

    def probabilities(
        self, stacks: Sequence[np.ndarray] | np.ndarray, progress: Tick = silent, task: str | None = None
    ) -> np.ndarray:
        """Prepared scans (N, S, 3, size, size) -> (N, K); task: see `classify`."""
        found, number = [], None if task is None else self.require_task(task)
        for turned, turn in enumerate(self.turns):
            images = np.ascontiguousarray(np.flip(np.asarray(stacks), turn))
            tick = partial(_within, progress, turned, len(self.turns))
            in_batches = partial(_in_batches, self.forward, images, self.device, tick, number)
            logits = in_smaller_batches("the images given", self.batch_size, in_batches)
            found.append(to_probabilities(logits, self.target, self.temperature).numpy())
        return np.mean(found, axis=0)

    def require_task(self, task: str) -> int:
        """The number of a task that it has learned.

        Raises:
            VptError: a task that is none of `tasks`, which the sentence lists.
        """
        if task not in self.tasks:
            known = f"has learned the tasks {listed(self.tasks, 20)}" if self.tasks else "has learned one task alone"
            raise VptError(f"task {task!r}: the model {known}{did_you_mean(task, self.tasks)}")
        return list(self.tasks).index(task)


def _in_batches(
    forward: Forward, stacks: np.ndarray, device: torch.device, progress: Tick, task: int | None, images: int
) -> torch.Tensor:
    return classify_stacks(forward, stacks, device, progress, images, task)


def _within(progress: Tick, turned: int, turns: int, done: int, total: int, note: str) -> None:
    """So far with the mirror image of that number, of so many that each have `total`."""
    progress(turned * total + done, turns * total, note)

"""What differs between the tasks of a run: its data, its loss, how it is validated, and what it shows at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from logging import Logger
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from vpt.engine.setup import Setup
from vpt.machine.memory import inference_batch
from vpt.machine.precision import Chosen, choose_precision
from vpt.model import PromptedModel, numbers_per_image


class Job(ABC):
    """A run's model and data, prepared.

    dataset, forward, loss: see `vpt.engine.fit.fit`; batch_size, steps: of an epoch;
    score: which of the scores of `validate` chooses the best epoch; shown: key of a score -> its name, for pictures;
    validates: whether there are cases to choose the best epoch with.
    """

    model: PromptedModel
    forward: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    dataset: Dataset
    batch_size: int
    steps: int
    score: str
    shown: dict[str, str]
    unit: str  # of what fills a batch, for messages

    def __init__(self, run: Path, setup: Setup, cache: Path):
        """run: the run's folder; cache: where prepared data are kept."""
        self.run = run
        self.setup = setup
        self.cache = cache

    def choose_batch_size(self) -> int:
        """What the config says, else `images_at_once`."""
        return self.setup.config.train.batch_size or self.images_at_once

    @property
    def images_at_once(self) -> int:
        """32 up to 96 px and fewer for larger images, 8 at least."""
        return min(32, max(8, round(32 * (96 / self.setup.plan.image_size) ** 2)))

    @property
    def inference_batch(self) -> int:
        """Images at once where there is no backward pass, sized to the memory."""
        setup = self.setup
        masks = len(setup.dataset.labels) if setup.task == "segmentation" else 0
        return inference_batch(numbers_per_image(self.model.backbone.spec, setup.plan.image_size, masks), setup.device)

    @property
    def precision(self) -> Chosen:
        return choose_precision(self.setup.config.precision, self.setup.device)

    @property
    def validates(self) -> bool:
        return bool(self.setup.splits.val)

    def doubts(self) -> list[str]:
        """What a person should know before the training starts."""
        return []

    @abstractmethod
    def draw(self, epoch: int) -> Sequence[Sequence[Any]]:
        """The samples of every batch of an epoch, the same at every call."""

    @abstractmethod
    def images(self) -> Iterator[Tensor]:
        """Training images as the encoder is given them, (B, 3, H, W) normalised, none of them augmented."""

    @abstractmethod
    def validate(self, forward: nn.Module) -> dict[str, float]:
        """Scores on the validation cases."""

    @abstractmethod
    def finish(self, log: Logger) -> None:
        """Use the best artifact on the validation cases: files and pictures in `run/validation`."""

"""A run's task: what differs between segmenting and classifying, and how both get ready to train.

A job is described by its constructor, which only keeps values, and made ready by `prepare()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from vpt.building import build_model
from vpt.config.idle import idle_settings
from vpt.data.doubts.mirrored_sides import mirror_doubts
from vpt.data.doubts.said import doubts_of
from vpt.data.slices.stored import Store, Viewed
from vpt.data.splits import fold_in_words
from vpt.engine.announcing import folds_proposed, starts_of
from vpt.engine.further_task import share_prompts
from vpt.engine.previews import Previews
from vpt.engine.randomness import seed_all
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.restorable import require_restorable
from vpt.engine.setup import Setup
from vpt.engine.sound import Asked, require_sound
from vpt.engine.sound_encoder import require_sound_encoder
from vpt.engine.starting import adapted_model
from vpt.engine.storing import PrefixPlan, make_store, views_to_store
from vpt.errors import VptError
from vpt.fair.base import Given
from vpt.machine.memory import inference_batch
from vpt.machine.precision import choose_precision, slow_precision
from vpt.model import PromptedModel, numbers_per_image, trained_parts
from vpt.prompts.starts.tokens import initialise
from vpt.tasks.answers import Answers
from vpt.tasks.batch import Batch, GroupedSamples, Loss
from vpt.tasks.frozen import FrozenPrefix, OverPrefix
from vpt.tasks.images import Normalise
from vpt.vocabulary import Chosen
from vpt.words import counted, listed


class Job(ABC):
    """A run's model and data.

    Known from the start: score, which of the scores of `validate` chooses the best epoch; shown: key of a score -> its
    name, for pictures; unit: one of what fills a batch, for messages; previews: of validation cases while it trains;
    case_of: a sample of `draw` -> its case's number among those that train.

    Set by `prepare`: model, on the run's device; count: slices or examples to train on; batch_size, steps: of an epoch;
    forward, loss, dataset: see `vpt.engine.fit.fit`; prefix_plan: what of the encoder runs once.
    """

    score: str
    shown: dict[str, str]
    unit: str
    case_of: Callable[[Any], int]

    model: PromptedModel
    count: int
    batch_size: int
    steps: int
    loss: Loss
    forward: nn.Module
    dataset: Dataset
    prefix_plan: PrefixPlan

    def __init__(self, run: Path, setup: Setup, cache: Path, ranks: Ranks = ALONE):
        """run: the run's folder; cache: where prepared data are kept; ranks: the processes that train together."""
        self.run = run
        self.setup = setup
        self.cache = cache
        self.ranks = ranks
        self.previews = Previews(run, setup)

    # --- getting ready ------------------------------------------------------------------------------------------------

    def prepare(self, *, start: bool = True) -> None:
        """Build the model, read the data, let the prompts start, and store what the frozen prefix makes of the images.

        start: False where a state is going to be restored, so that how the prompts start says nothing.

        Raises:
            VptError: settings that do not fit the data or the encoder, which is said first; what is wrong with a file.
        """
        setup = self.setup
        require_weights(setup)
        seed_all(setup.config.seed)
        self.model = self._new_model()
        self.read()
        if setup.groups:
            given = Given(len(setup.groups.names), self.answers, setup.config.seed, setup.device)
            self.loss = setup.fair.loss(self.loss, given)
        self.model.to(setup.device)
        if setup.config.start.shared:
            share_prompts(self.model, setup.earlier)
        elif start and setup.start is None:
            how: Any = getattr(setup.config.prompts, "init", "uniform")
            initialise(self.model.backbone, self.model.prompts, self.images(), how, setup.config.seed)
        require_sound_encoder(self.model.backbone, setup.config.backbone, setup.plan.image_size)
        require_sound(self.model, self.on_images, self.over_prefix, self.asked)
        require_restorable(self.model, setup.config, setup.plan, len(setup.dataset.labels))
        self.choose_data()

    def _new_model(self) -> PromptedModel:
        """The model as the artifact left it that the run goes on from, or untrained."""
        config, plan, labels, start = self.setup.config, self.setup.plan, self.setup.dataset.labels, self.setup.start
        if start is None:
            return build_model(config, plan, len(labels))
        return adapted_model(start, config, plan, labels)

    @abstractmethod
    def read(self) -> None:
        """The training and validation data, in the cache from now on; then loss, count, batch_size and steps."""

    def choose_data(self) -> None:
        """What fills the batches, and the forward on it: where a frozen prefix can run once, on its stored output."""
        setup, train = self.setup, self.setup.config.train
        views = 1 if self.fixed else train.views
        viewed = self.viewed(views)
        prefix = FrozenPrefix(self.model, self.model.first_trained_block())
        above, numbers = self.over_prefix(prefix), views_to_store(viewed, self.draw, train.epochs)
        images = self.images_to_store(len(numbers) if views else self.count)
        self.prefix_plan = PrefixPlan(
            first=prefix.first,
            depth=self.model.backbone.spec.depth,
            views=views,
            fixed=self.fixed,
            gb=images * above.bytes / 1e9,
            limit=train.cache_gb,
            unit=self.unit,
            share=self.model.backbone.spec.share_below(prefix.first),
        )
        stored = self.prefix_plan.stored
        self.forward = (above if stored else self.on_images()).to(setup.device)
        self.dataset = self.samples(viewed, self.store("train", viewed, numbers, above) if stored else None)
        if setup.groups:
            self.dataset = GroupedSamples(self.dataset, self.groups_of_cases, self.case_of)

    def store(self, part: str, viewed: Viewed, numbers: np.ndarray, above: OverPrefix) -> Store:
        """What the frozen prefix makes of these views of a side's data; made where it is not there yet."""
        folder, content = self.place(part)
        return make_store(
            self.setup,
            self.model,
            above,
            viewed,
            numbers,
            folder=folder,
            content=content,
            batch_size=max(1, self.images_at_once // (self.setup.plan.slices or 1)),
            title=f"encoding {part} {self.unit}s",
        )

    @abstractmethod
    def answers(self) -> Answers:
        """What groups could be told apart by."""

    @property
    def groups_of_cases(self) -> Sequence[int]:
        """The group of everything that `case_of` numbers."""
        assert self.setup.groups is not None
        return self.setup.groups.numbers(self.setup.splits.train)

    @property
    def balanced(self) -> Sequence[int] | None:
        """These groups where all are drawn as often as each other."""
        return self.groups_of_cases if self.setup.groups and self.setup.fair.balances else None

    @property
    def choosing(self) -> dict[str, list[int]]:
        """Groups of which the worst chooses the best epoch, with the places of their validation cases; else none."""
        return self.setup.groups.chosen_by(self.setup.splits.val) if self.setup.groups else {}

    def choose_by_worst(self) -> None:
        """Let the score of the worst group choose, where that is asked for, and show that of all cases beside it."""
        if self.choosing:
            key = worst_of(self.score)
            self.shown = {key: "worst group", self.score: self.shown.get(self.score, "mean")} | self.shown
            self.score = key

    @property
    @abstractmethod
    def asked(self) -> Asked:
        """The shapes of an image and of its logits."""

    @property
    @abstractmethod
    def fixed(self) -> bool:
        """Whether every slice or example looks the same whenever it is drawn."""

    @abstractmethod
    def viewed(self, views: int) -> Viewed:
        """The training data with so many fixed views of each sample, 0 for new ones at every draw."""

    @abstractmethod
    def samples(self, viewed: Viewed, store: Store | None) -> Dataset[Batch]:
        """The same, with the parts of a sample by name, and with the rows of the store."""

    @abstractmethod
    def on_images(self) -> nn.Module:
        """The whole model's forward."""

    @abstractmethod
    def over_prefix(self, prefix: FrozenPrefix) -> OverPrefix:
        """The forward on what the prefix gave."""

    def images_to_store(self, training: int) -> int:
        """Rows that storing takes where so many samples are trained on."""
        return training

    @abstractmethod
    def place(self, part: str) -> tuple[Path, Sequence[str]]:
        """The folder for what is stored of a side's data, and what decides its images beside plan and augmentation."""

    # --- training -----------------------------------------------------------------------------------------------------

    def doubts(self) -> list[str]:
        """What a person should know before the training starts."""
        splits, groups = self.setup.splits, self.setup.groups
        of_groups = groups.doubts(splits.train, splits.val) if groups else ()
        mirrored = mirror_doubts(self.setup.dataset.labels.values(), self.setup.config.train.mirror, self.setup.plan)
        found = [*doubts_of(self.setup.dataset, splits), *of_groups, *mirrored]
        slow = slow_precision(self.setup.config.precision, self.setup.device)
        return [*found, *self._idle(), *self.prefix_plan.doubts(), *filter(None, [slow])]

    def _idle(self) -> list[str]:
        """Settings that change nothing in this run."""
        config, dataset, counts = self.setup.config, self.setup.dataset, self.model.count_parameters()
        fold = fold_in_words(dataset, config.data.fold, config.data.folds, self.setup.splits)
        return idle_settings(
            config,
            {part for part in trained_parts(counts) if counts.get(part)},
            pictures=dataset.kind == "images",
            fixed=self.fixed,
            in_folds=bool(fold),
        )

    def starts(self) -> list[str]:
        """What the run goes on from, and the groups that it treats alike."""
        return starts_of(self.setup)

    def proposals(self) -> list[str]:
        """What could be chosen instead, to who left it open."""
        return folds_proposed(self.setup)

    @abstractmethod
    def draw(self, epoch: int) -> Sequence[Sequence[Any]]:
        """The samples of every batch of an epoch, the same at every call."""

    @abstractmethod
    def names(self, samples: Sequence[Any]) -> list[str]:
        """Whose the samples of `draw` are, for messages."""

    @abstractmethod
    def images(self) -> Iterator[Tensor]:
        """Training images as the encoder is given them, (B, 3, H, W) normalised, none of them augmented."""

    def normalise(self) -> Normalise:
        """The way from images as the data give them to those of the encoder, on the run's device."""
        return Normalise.of(self.model).to(self.setup.device)

    @abstractmethod
    def validate(self, forward: nn.Module) -> dict[str, float]:
        """Scores on the validation cases, each of which one process looks at."""

    @abstractmethod
    def finish(self, log: Logger) -> None:
        """Use the best artifact on the validation cases: files and pictures in `run/validation`."""

    @abstractmethod
    def keep_familiar(self) -> None:
        """Add to the best artifact what tells new cases from those of the training, where the task has a use for it."""

    # --- sizes --------------------------------------------------------------------------------------------------------

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
        """Whether there are cases to choose the best epoch with."""
        return bool(self.setup.splits.val)


def worst_of(score: str) -> str:
    """The key of the worst group's score."""
    return f"worst_{score}"


def require_weights(setup: Setup) -> None:
    """Raise VptError where `loss.class_weights` are numbers, but not one for each class."""
    given, names = setup.config.loss.class_weights, list(setup.dataset.labels.values())
    if not isinstance(given, str) and len(given) != len(names):
        what = "labels" if setup.task == "segmentation" else "classes"
        raise VptError(f"loss.class_weights: {counted(len(given), 'weight')} for {len(names)} {what} ({listed(names)})")

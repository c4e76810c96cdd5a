"""A frozen prefix that runs once for what it sees, not in every step: whether it can, and the file it takes."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from vpt.data.slices.stored import Store, Viewed, is_whole, to_half, write_rows
from vpt.engine.loading import EpochSampler, choose_workers, load
from vpt.engine.setup import Setup
from vpt.machine.precision import autocast, choose_precision
from vpt.model import PromptedModel
from vpt.progress import bar
from vpt.tasks.frozen import OverPrefix
from vpt.words import with_article

SUGGESTED = 4  # views, to a run that could store them
PAYS = 0.4  # of a forward pass: LiteMedSAM below its third stage, whose steps are 1.3 times as fast so (docs/speed.md)


@dataclass(frozen=True)
class PrefixPlan:
    """Whether the frozen prefix of a run's encoder runs once per view, its output stored, or in every step.

    first: so many of `depth` blocks are the prefix: they run as in the frozen encoder whatever is learned;
    views: of every slice or example, 1 where `fixed`, which is always the same, 0 where it is drawn anew;
    gb: what storing takes, with 0 views what each of them would take; limit: `train.cache_gb`; unit: "slice";
    share: of a forward pass that the prefix takes.
    """

    first: int
    depth: int
    views: int
    fixed: bool
    gb: float
    limit: float
    unit: str
    share: float

    @property
    def stored(self) -> bool:
        return self.first > 0 and self.views > 0 and self.gb <= self.limit

    def doubts(self) -> list[str]:
        """What is stored, or why nothing is; what else would pay."""
        blocks = f"all {self.depth}" if self.first == self.depth else f"the first {self.first} of {self.depth}"
        most = SUGGESTED * self.gb
        if self.first == 0:
            if self.fixed or not self.views:
                return []
            return [f"train.views={self.views}: no block stays as it was, so fixed views save no time; leave it out"]
        if self.stored:
            return [
                f"{blocks} blocks run {self._each(self.views)}, not in every epoch: "
                f"{_in_gb(self.gb)} of their output are stored"
            ]
        if self.views:
            return [
                f"{blocks} blocks run in every step: storing their output would take {_in_gb(self.gb)}, more than "
                f"train.cache_gb={self.limit:g}; raise that, and they run {self._each(self.views)}"
            ]
        if self.share < PAYS:
            return []
        room = f" and train.cache_gb={math.ceil(most)}" if most > self.limit else ""
        return [
            f"{blocks} blocks run in every step, about {self.share:.0%} of a forward pass, since every {self.unit} is "
            f"cropped or augmented anew; with train.views={SUGGESTED}{room} they run {self._each(SUGGESTED)}, and up "
            f"to {_in_gb(most)} are stored"
        ]

    def _each(self, views: int) -> str:
        return f"once per {self.unit}" if views == 1 else f"once for each of {views} views of {with_article(self.unit)}"


def _in_gb(size: float) -> str:
    return f"{size:.2g} GB" if size >= 0.01 else "under 0.01 GB"


def views_to_store(dataset: Viewed, draw: EpochSampler, epochs: int) -> np.ndarray:
    """Sorted numbers (N,): of all views where training draws at least so many samples, else of those that it draws.

    All of them serve runs with other seeds too. Of a data set without fixed views there are none.
    """
    if epochs * sum(map(len, draw(0))) >= dataset.count:
        return np.arange(dataset.count)
    drawn = {dataset.number(one) for epoch in range(epochs) for batch in draw(epoch) for one in batch}
    return np.array(sorted(drawn))


def make_store(
    setup: Setup,
    model: PromptedModel,
    above: OverPrefix,
    dataset: Viewed,
    numbers: np.ndarray,
    *,
    folder: Path,
    content: Sequence[str],
    batch_size: int,
    title: str,
) -> Store:
    """What the frozen prefix makes of the views `numbers` of a data set; a file that is there already is taken.

    Several processes may ask for it, one of them makes it.

    Args:
        model: on the run's device; above: its forward on what is stored, which says what that is;
        content: what decides the images, but for plan, augmentation and views; title: of the bar.

    Raises:
        VptError: rows that half precision does not hold; a full disk.
    """
    path = folder / f"{_key(setup, model, dataset, numbers, [above.kind, *content])}.{above.kind}.npy"
    if is_whole(path, len(numbers)):
        return Store(path, numbers)
    draws = [dataset.view(int(number)) for number in numbers]
    batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
    model.eval()
    above.to(setup.device)

    def encoded() -> Generator[np.ndarray, None, None]:
        done = 0
        with closing(load(dataset, batches, choose_workers(setup.config.train.workers))) as loaded, bar(title) as tick:
            for images, *_ in loaded:
                rows = above.encode(images.to(setup.device))
                yield to_half(rows) if above.half_precision else rows.float().cpu().numpy()
                done += len(images)
                tick(done, len(numbers), "")

    # no_grad, not inference_mode: whatever a backbone keeps for later must be good for training
    precision = choose_precision(setup.config.precision, setup.device)  # as the blocks would run in training
    with FileLock(f"{path}.lock"), torch.no_grad(), autocast(precision, setup.device):
        if not is_whole(path, len(numbers)):
            with closing(encoded()) as rows:
                write_rows(path, rows, len(numbers))
    return Store(path, numbers)


def _key(setup: Setup, model: PromptedModel, dataset: Viewed, numbers: np.ndarray, others: Sequence[str]) -> str:
    decides = [
        model.backbone.sha256,
        repr(model.backbone.spec),
        str(sorted(setup.config.backbone.options.items())),
        str(model.head.levels),
        setup.plan.model_dump_json(exclude={"reasons", "values"}),
        setup.config.train.augment,
        setup.config.train.mirror,
        choose_precision(setup.config.precision, setup.device),
        str(dataset.views),
        sha256(numbers.astype(np.int64).tobytes()).hexdigest(),
        *others,
    ]
    return sha256("\n".join(decides).encode()).hexdigest()[:16]

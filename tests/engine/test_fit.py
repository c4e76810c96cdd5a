"""The loop: when it stops, what it saves, and that its batches depend on seed, epoch and step only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vpt.data.cached_slices import PreparedCase, prepare_cases
from vpt.data.drawing import SliceDataset, SliceDraw, draw_epoch
from vpt.data.layouts import read_dataset
from vpt.data.plan import Percentiles, Plan
from vpt.data.transforms import make_augment
from vpt.engine.checkpoint import Progress
from vpt.engine.fit import Hooks, Interrupted, Settings, fit, load_batches, stop_on_signal
from vpt.engine.optim import schedule
from vpt.errors import VptError
from vpt.progress import silent
from vpt.tasks.batch import Batch, Loss, NamedSamples, Output

PLAN = Plan(
    plane="axial", pixel_mm=1.5, image_size=32, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip
SETTINGS = Settings(
    epochs=3,
    steps=2,
    validate_every=1,
    patience=None,
    workers=0,
    warmup=0.1,
    clip=1.0,
)


@pytest.fixture(scope="session")
def cases(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    dataset = read_dataset(tiny_data)
    return prepare_cases(dataset, dataset.cases[:3], PLAN, tmp_path_factory.mktemp("cache"), silent)


@pytest.fixture
def slices(cases: list[PreparedCase]) -> NamedSamples:
    return NamedSamples(SliceDataset(cases, PLAN, make_augment("light")), ["images", "truth"])


class Named(nn.Module):
    """A module on the images of a batch, with a penalty of its own if one is given."""

    def __init__(self, module: nn.Module, penalty: Tensor | None = None):
        super().__init__()
        self.module = module
        self.penalty = penalty

    def forward(self, batch: Batch) -> Output:
        return Output(self.module(batch["images"]), self.penalty)


def cross_entropy(output: Output, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(output.logits, batch["truth"])


class Loop:
    """`fit` on a single convolution, with validation scores that the test chooses; keeps what the hooks were told."""

    def __init__(self, cases: Sequence[PreparedCase], slices: NamedSamples):
        self.cases, self.slices = cases, slices
        self.saved: list[tuple[int, int]] = []
        self.ended: list[tuple[int, bool]] = []
        self.progress = Progress()

    def run(
        self,
        settings: Settings = SETTINGS,
        scores: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        loss: Loss = cross_entropy,
    ) -> Progress:
        from lightning.fabric import Fabric

        torch.manual_seed(0)
        fabric = Fabric(accelerator="cpu", devices=1)
        module = Named(nn.Conv2d(3, 3, 3, padding=1))
        plain = torch.optim.AdamW([{"params": module.parameters(), "peak": 0.01}], lr=0.01)
        forward, optimizer = fabric.setup(module, plain)
        left: Iterator[float] = iter(scores)
        hooks = Hooks(
            validate=lambda: {"dice": next(left)},
            save=lambda progress: self.saved.append((progress.epoch, progress.step)),
            epoch_end=lambda progress, best: self.ended.append((progress.epoch, best)),
        )
        draw = draws(self.cases, settings)
        return fit(fabric, forward, optimizer, loss, self.slices, draw, settings, hooks, self.progress)


@pytest.fixture
def loop(cases: list[PreparedCase], slices: NamedSamples) -> Loop:
    return Loop(cases, slices)


def draws(cases: Sequence[PreparedCase], settings: Settings, seed: int = 0) -> Callable[[int], list[list[SliceDraw]]]:
    return lambda epoch: draw_epoch(cases, steps=settings.steps, batch_size=2, foreground=0.6, seed=seed, epoch=epoch)


def batches(
    slices: NamedSamples, cases: Sequence[PreparedCase], settings: Settings, seed: int = 0, **place: int
) -> list[Any]:
    return list(load_batches(slices, draws(cases, settings, seed), settings, Progress(**place)))


def equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_are_images_and_classes_of_the_plans_size(slices: NamedSamples, cases: list[PreparedCase]) -> None:
    batch = batches(slices, cases, SETTINGS)[0]
    images, classes = batch["images"], batch["truth"]
    assert batch.keys() == {"images", "truth"}
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert classes.shape == (2, 32, 32)
    assert classes.dtype == torch.int64
    assert classes.max() <= 2


def test_a_worker_makes_the_same_batches(slices: NamedSamples, cases: list[PreparedCase]) -> None:
    one = replace(SETTINGS, workers=1)
    assert equal(batches(slices, cases, SETTINGS, epoch=1), batches(slices, cases, one, epoch=1))


def test_the_rest_of_an_epoch_is_what_the_whole_one_would_bring(
    slices: NamedSamples, cases: list[PreparedCase]
) -> None:
    whole = batches(slices, cases, replace(SETTINGS, steps=4), epoch=2)
    assert equal(batches(slices, cases, replace(SETTINGS, steps=4), epoch=2, step=3), whole[3:])
    assert batches(slices, cases, replace(SETTINGS, steps=4), epoch=2, step=4) == []


def test_epochs_and_seeds_differ(slices: NamedSamples, cases: list[PreparedCase]) -> None:
    first = batches(slices, cases, SETTINGS)
    assert equal(first, batches(slices, cases, SETTINGS))
    assert not equal(first, batches(slices, cases, SETTINGS, epoch=1))
    assert not equal(first, batches(slices, cases, SETTINGS, seed=1))


def test_loading_leaves_torchs_random_state_alone(slices: NamedSamples, cases: list[PreparedCase]) -> None:
    """A resumed epoch loads its rest once more; dropout must not notice."""
    before = torch.get_rng_state()
    batches(slices, cases, SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_every_epoch_is_scored_told_and_saved(loop: Loop) -> None:
    progress = loop.run(scores=(0.5, 0.4, 0.6))
    assert loop.ended == [(1, True), (2, False), (3, True)]
    assert loop.saved == [(1, 0), (2, 0), (3, 0)]
    assert (progress.best, progress.best_epoch) == (0.6, 3)
    assert [row["dice"] for row in progress.rows] == [0.5, 0.4, 0.6]


def test_the_rate_in_a_row_is_the_one_of_its_last_step(loop: Loop) -> None:
    loop.run()
    assert [row["lr"] for row in loop.progress.rows] == [0.01 * schedule(step, 6, 0.1) for step in (1, 3, 5)]


def test_early_stopping_is_off_unless_asked_for(loop: Loop) -> None:
    loop.run(replace(SETTINGS, epochs=5), scores=(0.9, 0.1, 0.1, 0.1, 0.1))
    assert len(loop.progress.rows) == 5


def test_patience_counts_epochs_since_the_best(loop: Loop) -> None:
    loop.run(replace(SETTINGS, epochs=6, patience=2), scores=(0.1, 0.5, 0.4, 0.4))
    assert loop.progress.epoch == 4
    assert loop.progress.best_epoch == 2


def test_a_run_that_stopped_early_does_not_go_on_when_resumed(loop: Loop) -> None:
    settings = replace(SETTINGS, epochs=6, patience=1)
    loop.run(settings, scores=(0.5, 0.4))
    loop.run(settings, scores=())
    assert loop.progress.epoch == 2


def test_patience_waits_for_a_first_validation(loop: Loop) -> None:
    """With patience below `validate_every` there would be no best artifact otherwise."""
    loop.run(replace(SETTINGS, epochs=6, patience=1, validate_every=2), scores=(0.5, 0.4))
    assert loop.ended == [(1, False), (2, True), (3, False), (4, False)]


def test_the_last_epoch_is_always_validated(loop: Loop) -> None:
    loop.run(replace(SETTINGS, validate_every=10), scores=(0.3,))
    assert ["dice" in row for row in loop.progress.rows] == [False, False, True]
    assert loop.ended[-1] == (3, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_said_with_the_fix(loop: Loop, value: float) -> None:
    calls = iter(range(10))

    def loss(output: Output, batch: Batch) -> Tensor:
        return output.logits.mean() * (value if next(calls) == 3 else 1)

    with pytest.raises(VptError, match=r"the loss became -?(nan|inf) in epoch 2, step 2; lower optim\.lr"):
        loop.run(loss=loss)
    assert loop.saved == [(1, 0)]


# --- signals ----------------------------------------------------------------------------------------------------------


def test_batches_that_share_an_update_are_one_large_batch() -> None:
    """Two of 4 like one of 8; the last of an epoch share what is left (5 batches: 2, 2 and 1)."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(20, 6), torch.randint(3, (20,))
    large = [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    small = [list(range(k, k + 4)) for k in range(0, 20, 4)]
    results = []
    for draw, accumulate in ((large, 1), (small, 2)):
        torch.manual_seed(1)
        module = nn.Linear(6, 3)
        learn(Named(module), named(inputs, truth), draw, accumulate)
        results.append(module.weight.detach())

    assert torch.allclose(*results, atol=1e-6)


def named(inputs: Tensor, truth: Tensor, **others: Tensor) -> NamedSamples:
    parts = torch.utils.data.TensorDataset(inputs, truth, *others.values())
    return NamedSamples(parts, ["images", "truth", *others])


def learn(
    module: nn.Module,
    dataset: Any,
    draw: list[list[int]],
    accumulate: int = 1,
    loss: Loss = cross_entropy,
    clip: float | None = 1.0,
) -> Progress:
    """Two epochs at a rate that does not change, so that the number of batches says nothing."""
    from lightning.fabric import Fabric

    settings = replace(SETTINGS, epochs=2, steps=len(draw), accumulate=accumulate, warmup=0.0, clip=clip)
    fabric = Fabric(accelerator="cpu", devices=1)
    forward, optimizer = fabric.setup(module, torch.optim.SGD([{"params": module.parameters(), "peak": 0.1}], lr=0.1))
    hooks = Hooks(validate=None, save=lambda progress: None, epoch_end=lambda progress, best: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpt.engine.fit.rate", lambda epoch, step, settings: 1.0)
        return fit(
            fabric,
            forward,
            optimizer,
            loss,
            dataset,
            lambda epoch: draw,
            settings,
            hooks,
            Progress(),
        )


def test_a_penalty_of_the_output_is_part_of_the_loss_and_of_its_gradient() -> None:
    inputs, truth, strength = torch.randn(4, 6), torch.randint(3, (4,)), nn.Parameter(torch.tensor(2.0))
    losses = []
    for penalty in (None, strength):
        torch.manual_seed(1)
        module = Named(nn.Linear(6, 3), penalty)
        losses.append([row["loss"] for row in learn(module, named(inputs, truth), [[0, 1, 2, 3]]).rows])

    plain, penalised = losses
    # SGD at rate 0.1 takes 0.1 off it, no more: gradients are clipped to 1 as a whole, so a bit less
    assert penalised[0] - plain[0] == pytest.approx(2.0, abs=1e-6)
    assert 1.8 < float(strength.detach()) < 2.0


@pytest.mark.parametrize(("clip", "moved"), [(1.0, 0.2), (None, 1.0)])
def test_gradients_are_clipped_or_left_as_they_are(clip: float | None, moved: float) -> None:
    """A gradient of 5, twice, at rate 0.1."""
    module, dataset = nn.Linear(1, 1, bias=False), named(torch.ones(1, 1), torch.zeros(1))
    before = module.weight.item()
    learn(Named(module), dataset, [[0]], loss=lambda output, batch: 5 * output.logits.sum(), clip=clip)

    assert before - module.weight.item() == pytest.approx(moved, abs=1e-4)


def test_a_loss_is_given_the_whole_batch() -> None:
    """Weights of samples, for example: one that weighs nothing teaches nothing."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(4, 6), torch.randint(3, (4,))
    other = torch.where(torch.tensor([False, True, False, True]), (truth + 1) % 3, truth)

    def weighted(output: Output, batch: Batch) -> Tensor:
        losses = nn.functional.cross_entropy(output.logits, batch["truth"], reduction="none")
        return (losses * batch["weights"]).sum() / batch["weights"].sum()

    learned = []
    for given, weights in ((truth, [1.0, 0, 1, 0]), (other, [1.0, 0, 1, 0]), (other, [1.0, 1, 1, 1])):
        torch.manual_seed(1)
        module = nn.Linear(6, 3)
        dataset = named(inputs, given, weights=torch.tensor(weights))
        learn(Named(module), dataset, [[0, 1, 2, 3]], loss=weighted)
        learned.append(module.weight.detach())

    assert torch.equal(learned[0], learned[1])
    assert not torch.allclose(learned[0], learned[2])


def test_a_signal_waits_for_the_batches_that_share_an_update(loop: Loop) -> None:
    seen = []

    def loss(output: Output, batch: Batch) -> Tensor:
        seen.append(len(seen))
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return cross_entropy(output, batch)

    with pytest.raises(Interrupted):
        loop.run(replace(SETTINGS, steps=4, accumulate=2), loss=loss)
    assert len(seen) == 2
    assert loop.saved == [(0, 2)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_leaves(loop: Loop, number: int) -> None:
    calls = iter(range(10))

    def loss(output: Output, batch: Batch) -> Tensor:
        if next(calls) == 2:
            os.kill(os.getpid(), number)
        return cross_entropy(output, batch)

    with pytest.raises(Interrupted):
        loop.run(loss=loss)
    assert loop.saved == [(1, 0), (1, 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_of_processes_ends_no_worker_first(loop: Loop, number: int) -> None:
    calls = iter(range(100))

    def loss(output: Output, batch: Batch) -> Tensor:
        if next(calls) == 1:
            workers = multiprocessing.active_children()
            assert workers
            every = [str(worker.pid) for worker in workers] + [str(os.getpid())]
            subprocess.run(["kill", f"-{number:d}", *every], check=True)  # its sender counts: a loader's workers look
            time.sleep(0.5)  # for a worker to end, and to be missed
        return cross_entropy(output, batch)

    with pytest.raises(Interrupted):
        loop.run(replace(SETTINGS, workers=1, steps=20), loss=loss)
    assert loop.saved == [(0, 2)]
    assert multiprocessing.active_children() == []


def test_a_second_ctrl_c_acts_at_once() -> None:
    with stop_on_signal() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signal():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_training_works_in_a_thread_where_signals_cannot_be_caught() -> None:
    seen: list[bool] = []

    def use() -> None:
        with stop_on_signal() as stopped:
            seen.append(stopped.is_set())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [False]

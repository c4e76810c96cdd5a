"""The loop: when it stops, what it saves, and that its batches depend on seed, epoch and step only."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vpt.data.layouts import read_dataset
from vpt.data.plan import Percentiles, Plan
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases
from vpt.data.slices.drawing import SliceDataset, SliceDraw, draw_epoch
from vpt.data.transforms import make_augment
from vpt.engine import loading
from vpt.engine.checkpoint import Progress
from vpt.engine.fit import LOST, Cadence, Hooks, Settings, fit
from vpt.engine.loading import load
from vpt.engine.optim import schedule
from vpt.engine.signals import Interrupted
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
        self.told: list[str] = []
        self.progress = Progress()

    def weights(self) -> Tensor:
        return self.module.module.weight.detach().clone()

    def moments(self) -> Tensor:
        moments = [moment.flatten() for of in self.optimizer.state.values() for moment in of.values()]
        return torch.cat([torch.ones(1), *moments])

    def run(
        self,
        settings: Settings = SETTINGS,
        scores: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        loss: Loss = cross_entropy,
        validate: Callable[[], dict[str, float]] | None = None,
    ) -> Progress:
        from lightning.fabric import Fabric

        torch.manual_seed(0)
        fabric = Fabric(accelerator="cpu", devices=1)
        self.module = Named(nn.Conv2d(3, 3, 3, padding=1))
        self.optimizer = torch.optim.AdamW([{"params": self.module.parameters(), "peak": 0.01}], lr=0.01)
        forward, optimizer = fabric.setup(self.module, self.optimizer)
        left: Iterator[float] = iter(scores)
        hooks = Hooks(
            validate=validate or (lambda: {"dice": next(left)}),
            save=lambda progress: self.saved.append((progress.epoch, progress.step)),
            epoch_end=lambda progress, best: self.ended.append((progress.epoch, best)),
            say=self.told.append,
            names=lambda samples: [f"case {one.case} slice {one.slice}" for one in samples],
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
    progress = Progress(**place)
    return list(load(slices, draws(cases, settings, seed)(progress.epoch)[progress.step :], settings.workers))


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


def test_workers_that_start_where_nobody_reads_what_is_printed_are_not_blamed(
    slices: NamedSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*given: Any) -> Any:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # as where the start of a process flushes stdout

    monkeypatch.setattr(loading, "make_loader", unread)
    with pytest.raises(BrokenPipeError):
        next(load(slices, [[]], workers=1))


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
    told: list[str] | None = None,
) -> Progress:
    """Two epochs at a rate that does not change, so that the number of batches says nothing."""
    from lightning.fabric import Fabric

    settings = replace(SETTINGS, epochs=2, steps=len(draw), accumulate=accumulate, warmup=0.0, clip=clip)
    fabric = Fabric(accelerator="cpu", devices=1)
    forward, optimizer = fabric.setup(module, torch.optim.SGD([{"params": module.parameters(), "peak": 0.1}], lr=0.1))
    say = (told if told is not None else []).append
    hooks = Hooks(validate=None, save=lambda progress: None, epoch_end=lambda progress, best: None, say=say)
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


@pytest.mark.slow
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


def test_a_signal_in_the_validation_saves_and_it_is_done_again(loop: Loop) -> None:
    def validate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("never reached")

    with pytest.raises(Interrupted) as stop:
        loop.run(validate=validate)
    assert stop.value.code == 143
    assert loop.saved == [(0, 2)]
    loop.run(scores=(0.5, 0.4, 0.6))
    assert loop.ended == [(1, True), (2, False), (3, True)]


@pytest.mark.parametrize(
    ("every", "saved"),
    [(Cadence(batches=2), [(0, 2), (0, 4), (1, 0)]), (Cadence(seconds=0), [(0, k) for k in range(1, 6)] + [(1, 0)])],
)
def test_the_state_is_saved_within_an_epoch(loop: Loop, every: Cadence, saved: list[tuple[int, int]]) -> None:
    loop.run(replace(SETTINGS, epochs=1, steps=5, save_every=every))
    assert loop.saved == saved


def test_how_often_is_read_as_batches_or_minutes() -> None:
    assert Cadence.of("200") == Cadence(batches=200)
    assert Cadence.of("10m") == Cadence(seconds=600)


# --- what cannot be learned from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_loss_teaches_nothing_and_is_told(loop: Loop, value: float) -> None:
    calls, seen = iter(range(100)), []

    def loss(output: Output, batch: Batch) -> Tensor:
        call = next(calls)
        seen.append(loop.weights())
        return cross_entropy(output, batch) * (value if call == 3 else 1)

    progress = loop.run(loss=loss)
    assert torch.equal(seen[3], seen[4])
    assert not torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[4], seen[5])
    (told,) = loop.told
    assert told.startswith(f"in epoch 2, step 2 the loss is {value}, so nothing is learned from it (case ")
    assert all(row["loss"] < 3 for row in progress.rows)


def test_a_gradient_that_is_not_finite_leaves_weights_and_moments_alone(loop: Loop) -> None:
    """The loss is finite: a square root at 0 has an infinite slope."""
    calls, seen = iter(range(100)), []

    def loss(output: Output, batch: Batch) -> Tensor:
        call = next(calls)
        seen.append((loop.weights(), loop.moments()))
        return cross_entropy(output, batch) + ((output.logits * 0).abs().sqrt().sum() if call == 3 else 0)

    loop.run(loss=loss)
    assert torch.equal(seen[3][0], seen[4][0])
    assert torch.equal(seen[3][1], seen[4][1])
    assert not torch.equal(seen[2][1], seen[3][1])
    assert loop.told[0].startswith("in epoch 2, step 2 the gradient is nan")


def test_the_sample_that_is_to_blame_is_named(loop: Loop) -> None:
    def loss(output: Output, batch: Batch) -> Tensor:
        if not loop.told:
            output.logits[1] = torch.nan
        return cross_entropy(output, batch)

    loop.run(loss=loss)
    drawn = draws(loop.cases, SETTINGS)(0)[0][1]
    assert loop.told == [
        f"in epoch 1, step 1 the loss is nan, so nothing is learned from it (case {drawn.case} slice {drawn.slice})"
    ]


def test_after_several_in_a_row_it_stops_with_its_state(loop: Loop) -> None:
    def loss(output: Output, batch: Batch) -> Tensor:
        return cross_entropy(output, batch) * torch.nan

    with pytest.raises(VptError, match=r"in epoch 2, step 1 the loss is nan .* for the 3rd time in a row; lower"):
        loop.run(loss=loss)
    assert loop.saved == [(1, 0), (1, 1)]
    assert len(loop.told) == LOST - 1
    loop.run()
    assert loop.progress.epoch == 3


# --- too little memory ------------------------------------------------------------------------------------------------


def batch_dice(output: Output, batch: Batch) -> Tensor:
    """A loss that is no mean over samples."""
    found, truth = output.logits.softmax(1)[:, 1], (batch["truth"] == 1).float()
    return 1 - 2 * (found * truth).sum() / (found.sum() + truth.sum() + 1)


class Small(nn.Module):
    """Takes `most` samples at once when it learns, with dropout, and a penalty that is a mean over them."""

    def __init__(self, most: int, error: Exception):
        super().__init__()
        self.module, self.drop = nn.Conv2d(3, 3, 3, padding=1), nn.Dropout(0.5)
        self.most, self.error = most, error

    def forward(self, batch: Batch) -> Output:
        logits = self.module(batch["images"])
        if len(logits) > self.most and torch.is_grad_enabled():
            raise self.error
        return Output(logits, 0.1 * logits.square().mean())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
)
def test_a_batch_too_large_goes_in_parts_with_the_loss_of_the_whole(error: Exception) -> None:
    torch.manual_seed(0)
    images, truth = torch.rand(8, 3, 6, 6), torch.randint(3, (8, 6, 6))
    learned, told = [], []
    for most in (8, 3):
        torch.manual_seed(1)
        module = Small(most, error)
        module.drop.p = 0
        progress = learn(module, named(images, truth), [list(range(8))], loss=batch_dice, told=told)
        learned.append((module.module.weight.detach(), progress.rows[-1]["loss"], progress.parts))
    (whole, loss, _), (parts, other, count) = learned
    assert torch.allclose(whole, parts, atol=1e-6)
    assert other == pytest.approx(loss, abs=1e-6)
    assert count == 4
    assert [said.partition(":")[0] for said in told] == ["too little memory for a batch of 8"] * 2


def test_too_little_for_one_sample_is_a_sentence() -> None:
    images, truth = torch.rand(2, 3, 6, 6), torch.randint(3, (2, 6, 6))
    with pytest.raises(VptError, match="too little memory on cpu to train on one sample at a time; lower plan"):
        learn(Small(0, MemoryError()), named(images, truth), [[0, 1]])


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    images, truth = torch.rand(2, 3, 6, 6), torch.randint(3, (2, 6, 6))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        learn(Small(0, RuntimeError("mat1 and mat2 do not fit")), named(images, truth), [[0, 1]])


@pytest.mark.slow
def test_a_worker_that_was_killed_is_said_in_a_sentence_where_samples_are_asked_for(loop: Loop) -> None:
    interrupted: list[BaseException] = []
    others = set(multiprocessing.active_children())

    def loss(output: Output, batch: Batch) -> Tensor:
        try:
            for worker in set(multiprocessing.active_children()) - others:
                os.kill(worker.pid or 0, signal.SIGKILL)
                time.sleep(0.5)  # the word of its end comes meanwhile
        except RuntimeError as error:
            interrupted.append(error)
        return cross_entropy(output, batch)

    with pytest.raises(VptError, match=r"process that makes samples was ended .*set train.workers below 1, 0 for none"):
        loop.run(replace(SETTINGS, workers=1, steps=20), loss=loss)
    assert not interrupted


@pytest.mark.slow
def test_a_batch_that_does_not_fit_into_shared_memory_is_not_waited_for(
    slices: NamedSamples, cases: list[PreparedCase], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in containers, whose /dev/shm is of 64 MB."""

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    others = set(multiprocessing.active_children())
    monkeypatch.setattr(torch.UntypedStorage, "_new_using_fd_cpu", refused)  # the worker is forked
    with pytest.raises(VptError, match=r"does not fit into /dev/shm .*set train.workers below 1, 0 for none"):
        batches(slices, cases, replace(SETTINGS, workers=1), epoch=1)
    assert "Traceback" not in capfd.readouterr().err
    assert not set(multiprocessing.active_children()) - others


@pytest.mark.slow
def test_a_worker_whose_samples_cannot_be_fetched_says_that_few_files_are_allowed(
    slices: NamedSamples, cases: list[PreparedCase], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The thread of a worker that hands samples over would print a traceback, and try again for ever."""

    def refused(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("multiprocessing.connection.Listener.accept", refused)  # the worker is forked
    monkeypatch.setattr("vpt.engine.loading.open_files", lambda: 16)
    with pytest.raises(VptError, match=r"or needs more than 16 open files \(ulimit -n\); set train.workers below 1"):
        batches(slices, cases, replace(SETTINGS, workers=1), epoch=1)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_no_worker_is_left_by_a_failure_in_a_step(loop: Loop) -> None:
    """It would be waited for at the program's end, and ignores the signal that ends such."""
    others = set(multiprocessing.active_children())

    def loss(output: Output, batch: Batch) -> Tensor:
        raise ValueError("nobody expected this")

    with pytest.raises(ValueError, match="nobody expected") as held:  # its traceback holds what the frames hold
        loop.run(replace(SETTINGS, workers=1, steps=20), loss=loss)
    assert held.tb
    assert not set(multiprocessing.active_children()) - others


def test_what_a_worker_refuses_is_said_in_its_own_sentence(
    slices: NamedSamples, cases: list[PreparedCase], tmp_path: Path
) -> None:
    for path in (cases[0].images, cases[0].labels):
        shutil.copy(path, tmp_path / path.name)
        (tmp_path / path.name).write_bytes(path.read_bytes()[:40])
    broken = [replace(case, images=tmp_path / cases[0].images.name) for case in cases]
    damaged = NamedSamples(SliceDataset(broken, PLAN, make_augment("light")), slices.names)
    for workers in (0, 1):
        with pytest.raises(VptError, match=r"^\S+\.npy: damaged \(.*prepared anew$") as said:
            batches(damaged, cases, replace(SETTINGS, workers=workers), epoch=1)
        assert "Traceback" not in str(said.value)


def test_workers_that_cannot_be_started_are_said_in_a_sentence(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # /dev/shm of a container that is closed

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refused)
    with pytest.raises(VptError, match=r"cannot be started \(Permission denied\), as where /dev/shm .* below 1, 0 for"):
        loop.run(replace(SETTINGS, workers=1))

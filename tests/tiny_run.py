"""A tiny data set and one short run on it, made once and shared by the tests of the engine and the command line."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from vpt.backbones.base import Backbone
    from vpt.tasks.batch import Batch, Output

# Dropout in the prompts draws from torch's random state, so a resumed run must bring that back as well.
SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.max_steps": 3,
    "train.batch_size": 4,
    "train.workers": 0,
    "prompts": {"method": "deep", "count": 4, "dropout": 0.1},
    "plan.image_size": 32,
    "device": "cpu",
}
ONE_STEP = SETTINGS | {"train.epochs": 1, "train.max_steps": 1}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic cases, four to train. Read only: take `copied_data` to change one."""
    from vpt.data.synthetic import make_dataset

    return make_dataset(tmp_path_factory.mktemp("tiny") / "blobs", cases=6)


@pytest.fixture
def copied_data(tiny_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_data, tmp_path / "blobs")


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with SETTINGS: two epochs of three steps. Read only."""
    from vpt.engine.run import train

    return train(tiny_data, tmp_path_factory.mktemp("tiny") / "run", overrides=SETTINGS)


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """signal_at(step, signal.SIGINT): the loss of that step, counted from 1 over all epochs, sends the signal."""
    from vpt.engine import segmenting
    from vpt.tasks.segmentation import dice_ce

    def arrange(step: int, number: int = signal.SIGINT) -> None:
        real, calls = dice_ce(), iter(range(1, 1_000_000))

        def loss(output: Output, batch: Batch) -> torch.Tensor:
            if next(calls) == step:
                os.kill(os.getpid(), number)
            return real(output, batch)

        monkeypatch.setattr(segmenting, "dice_ce", lambda *settings: loss)

    return arrange


@pytest.fixture
def keep_models(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[Any, dict[str, torch.Tensor]]]]:
    """keep_models(module): the models its `build_model` makes from now on, each with what trained as it started."""

    def arrange(module: Any) -> list[tuple[Any, dict[str, torch.Tensor]]]:
        kept, build = [], module.build_model

        def keep(*args: Any) -> Any:
            model = build(*args)
            kept.append((model, {name: tensor.clone() for name, tensor in model.trained_state().items()}))
            return model

        monkeypatch.setattr(module, "build_model", keep)
        return kept

    return arrange


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with full_disk(10_000):` no file can grow beyond 10,000 bytes, which a writer meets like a full disk."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores SIGXFSZ
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def as_trained(backbone: Backbone) -> Backbone:
    """With its weights in the precision that a run with `precision: auto` keeps the frozen ones in on this machine."""
    import torch

    from vpt.machine.precision import choose_precision, prepare_frozen

    prepare_frozen(backbone, choose_precision("auto", torch.device("cpu")))
    return backbone


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without the seconds, which differ between equal runs."""
    with open(run / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(found: Path, expected: Path) -> None:
    """Bit for bit: both artifacts, the optimiser's moments, the random state; and every row of metrics.csv."""
    import torch
    from safetensors.torch import load_file

    for name in ("best.safetensors", "last.safetensors", "state/last.safetensors"):
        ours, theirs = load_file(found / name), load_file(expected / name)
        assert ours.keys() == theirs.keys()
        compared = [key for key in ours if not key.startswith("random.python")]  # libraries draw names of files from it
        assert [key for key in compared if not torch.equal(ours[key], theirs[key])] == [], name
    assert rows(found) == rows(expected)

"""The images of a MedMNIST .npz through a classifier: one table, called by side and number."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from commands import Told

from vpt.errors import VptError
from vpt.readers.npz import NpzReader


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sets") / "pneumoniamnist.npz", (28, 28))


def save(path: Path, shape: tuple[int, ...]) -> Path:
    rng, arrays = np.random.default_rng(0), {}
    for side, count in (("train", 8), ("val", 4), ("test", 2)):
        arrays[f"{side}_images"] = rng.integers(0, 255, (count, *shape)).astype(np.uint8)
        arrays[f"{side}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def run(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_run import ONE_STEP

    from vpt.engine.run import train

    return train(npz, tmp_path_factory.mktemp("run") / "out", overrides=ONE_STEP)


@pytest.mark.parametrize("out", ["out", "table.csv"])
def test_every_image_has_a_line(npz: Path, run: Path, out: str, vpt, tmp_path: Path) -> None:
    told: Told = vpt("predict", "-i", npz, "-o", tmp_path / out, "-m", run)

    assert told.code == 0, told
    with open(tmp_path / out / "predictions.csv" if out == "out" else tmp_path / out, newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert names == [f"{side}_{k:05d}" for side, count in (("train", 8), ("val", 4), ("test", 2)) for k in range(count)]


@pytest.mark.parametrize(
    ("shape", "found"), [((28, 28, 3), "images of 3 channels"), ((9, 9, 9), "volumes of 1 channel")]
)
def test_images_that_the_model_does_not_take_are_one_refusal(run: Path, shape, found, vpt, tmp_path: Path) -> None:
    told: Told = vpt("predict", "-i", save(tmp_path / "set.npz", shape), "-o", tmp_path / "out", "-m", run)

    assert told.code == 1
    assert f"set.npz: {found}, but the model was trained on images of 1 channel; give it what it" in told.err
    assert told.err.count("but the model was trained") == 1


def test_what_needs_a_record_is_refused(npz: Path, run: Path, vpt, tmp_path: Path) -> None:
    told: Told = vpt("predict", "-i", npz, "-o", tmp_path / "out", "-m", run, "--continue")

    assert "--continue and parts are of scans in files of their own" in told.err


def test_a_set_is_no_scan(npz: Path) -> None:
    with pytest.raises(VptError, match=r"a data set of many images \(MedMNIST\), expected one scan"):
        NpzReader((npz,)).grid()

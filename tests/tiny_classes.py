"""Tiny labelled data sets of every layout, and short runs on them, made once and shared by the tests of classification.

Stripes lie, stand, or there are none: what a convolution of one layer tells apart.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import torch

    from vpt.tasks.batch import Batch, Loss, Output

CLASSES = ("flat", "lying", "standing")
SIDES = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}  # numbers of a class

# Dropout in the prompts draws from torch's random state, so a resumed run must bring that back as well.
CLASS_SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.max_steps": 3,
    "train.batch_size": 4,
    "train.workers": 0,
    "prompts": {"method": "deep", "count": 2, "dropout": 0.1},
    "plan.image_size": 32,
    "device": "cpu",
}
ONE_CLASS_STEP = CLASS_SETTINGS | {"train.epochs": 1, "train.max_steps": 1}
HEAD_ONLY = CLASS_SETTINGS | {"prompts": {"method": "none"}, "train.augment": "none", "precision": "32-true"}


def stripes(kind: int, number: int, shape: tuple[int, int] = (28, 32)) -> np.ndarray:
    """(rows, columns) uint8: flat, lying or standing, with noise of its own."""
    noise = np.random.default_rng((kind, number)).integers(0, 60, shape)
    rows, columns = np.indices(shape)
    wave = [np.zeros(shape), rows // 4 % 2, columns // 4 % 2][kind]
    return (60 + noise + 120 * wave).astype(np.uint8)


def side_of(number: int) -> str:
    return next(side for side, numbers in SIDES.items() if number in numbers)


@pytest.fixture(scope="session")
def tiny_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 24 grey images, 12 to train, 6 to validate, 6 to test. Read only: take `copied_classes`."""
    root = tmp_path_factory.mktemp("tiny") / "stripes"
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(stripes(kind, number)).save(root / name / f"im{number}.png")
            sides[side_of(number)].append(f"{name}/im{number}")
    (root / "split.json").write_text(json.dumps(sides))
    return root


@pytest.fixture
def copied_classes(tiny_classes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_classes, tmp_path / "stripes")


@pytest.fixture(scope="session")
def tiny_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels.csv of 12 images with none, one or both of the labels `lying` and `standing`."""
    root = tmp_path_factory.mktemp("tiny") / "several"
    root.mkdir()
    rows = [["path", "label", "split"]]
    for number, name in enumerate(["", "lying", "standing", "lying|standing"] * 3):
        path = f"im{number:02d}.png"
        parts = [stripes(CLASSES.index(label), number) for label in name.split("|") if label]
        Image.fromarray(np.maximum.reduce([stripes(0, number), *parts])).save(root / path)
        rows.append([path, name, ("train", "val", "test")[number // 4]])
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session")
def tiny_grades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 18 images whose grade 0, 1 or 2 is their brightness; needs the target `grades`."""
    root = tmp_path_factory.mktemp("tiny") / "grades"
    root.mkdir()
    rows = [["path", "label", "split"]]
    for number in range(18):
        Image.fromarray(stripes(0, number) + np.uint8(60 * (number % 3))).save(root / f"im{number:02d}.png")
        rows.append([f"im{number:02d}.png", str(number % 3), ("train", "train", "val")[number // 6]])
    with open(root / "grades.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "grades.csv"


@pytest.fixture(scope="session")
def tiny_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of eight NIfTI volumes: in those of `ill` a few slices are bright."""
    import nibabel as nib

    root = tmp_path_factory.mktemp("tiny") / "scans"
    for number in range(8):
        voxels = np.random.default_rng(number).normal(100, 10, (14, 12, 6)).astype(np.float32)
        if number % 2:
            voxels[3:9, 3:9, 2:4] += 150
        folder = root / ("ill" if number % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])), folder / f"scan{number}.nii.gz")
    return root


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `tiny_classes` as MedMNIST has them, with their pixels in memory."""
    arrays: dict[str, np.ndarray] = {}
    for side, numbers in SIDES.items():
        pairs = [(kind, number) for kind in range(3) for number in numbers]
        arrays[f"{side}_images"] = np.stack([stripes(*pair) for pair in pairs])
        arrays[f"{side}_labels"] = np.array([[kind] for kind, _ in pairs])
    path = tmp_path_factory.mktemp("tiny") / "stripesmnist.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def class_run(tiny_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `tiny_classes` with CLASS_SETTINGS: two epochs of three steps. Read only."""
    from vpt.engine.run import train

    return train(tiny_classes, tmp_path_factory.mktemp("tiny") / "run", overrides=CLASS_SETTINGS)


@pytest.fixture(scope="session")
def label_run(tiny_labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on several labels an image. Read only."""
    from vpt.engine.run import train

    return train(tiny_labels, tmp_path_factory.mktemp("tiny") / "run", overrides=ONE_CLASS_STEP)


@pytest.fixture(scope="session")
def grade_run(tiny_grades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on grades. Read only."""
    from vpt.engine.run import train

    wanted = ONE_CLASS_STEP | {"data.target": "grades"}
    return train(tiny_grades, tmp_path_factory.mktemp("tiny") / "run", overrides=wanted)


@pytest.fixture(scope="session")
def scan_run(tiny_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on volumes of which three slices are read. Read only."""
    from vpt.engine.run import train

    return train(tiny_scans, tmp_path_factory.mktemp("tiny") / "run", overrides=ONE_CLASS_STEP | {"plan.slices": 3})


@pytest.fixture
def class_signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """class_signal_at(step, signal.SIGINT): as `signal_at` of the tests of segmentation."""
    from vpt.engine import classifying
    from vpt.tasks.classification import class_loss

    def arrange(step: int, number: int = signal.SIGINT) -> None:
        calls = iter(range(1, 1_000_000))

        def build(*settings: Any) -> Loss:
            real = class_loss(*settings)

            def loss(output: Output, batch: Batch) -> torch.Tensor:
                if next(calls) == step:
                    os.kill(os.getpid(), number)
                return real(output, batch)

            return loss

        monkeypatch.setattr(classifying, "class_loss", build)

    return arrange

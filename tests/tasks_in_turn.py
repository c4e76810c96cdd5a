"""A tiny data set of six classes, for tests of tasks that come one after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("dark", "bright", "lying", "standing", "fine", "coarse")
SIDES = {"train": range(3), "val": range(3, 4), "test": range(4, 6)}
STEP: dict[str, Any] = {
    "train.epochs": 1,
    "train.max_steps": 1,
    "train.batch_size": 4,
    "train.workers": 0,
    "train.augment": "none",
    "plan.image_size": 32,
    "precision": "32-true",
    "device": "cpu",
}


def picture(kind: int, number: int) -> np.ndarray:
    """(32, 32) uint8 with noise of its own."""
    rows, columns = np.indices((32, 32))
    shapes = (
        0 * rows,
        0 * rows + 1,
        rows // 4 % 2,
        columns // 4 % 2,
        (rows + columns) // 2 % 2,
        (rows + columns) // 8 % 2,
    )
    return (60 + np.random.default_rng((kind, number)).integers(0, 60, (32, 32)) + 120 * shapes[kind]).astype(np.uint8)


def write_classes(root: Path, names: tuple[str, ...] = CLASSES, first: int = 0) -> Path:
    """Class folders of six images each, with a fixed split; first: of the numbers that their noise follows."""
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for name in names:
        (root / name).mkdir(parents=True)
        for side, numbers in SIDES.items():
            for number in numbers:
                Image.fromarray(picture(CLASSES.index(name), first + number)).save(root / name / f"im{number}.png")
                sides[side].append(f"{name}/im{number}")
    (root / "split.json").write_text(json.dumps(sides))
    return root

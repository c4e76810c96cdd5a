"""Tiny data sets of images with masks that look different from each other, for tests of tasks in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tasks_in_turn import SIDES
from tasks_in_turn import STEP as QUICK

STEP: dict[str, Any] = QUICK | {
    "train.max_steps": 2,
    "prompts": {"method": "deep", "count": 2, "blocks": "last:2"},
    "head": {"kind": "mask", "width": 16, "detail": 8, "levels": 2},
}


def picture(kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(32, 32) uint8 with noise of its own, and its mask: a disc on dark ground, or a square on bright stripes."""
    rows, columns = np.indices((32, 32))
    rng = np.random.default_rng((len(kind), number))
    top, left = rng.integers(8, 20, 2)
    noise = rng.integers(0, 30, (32, 32))
    if kind == "disc":
        mask = (rows - top) ** 2 + (columns - left) ** 2 < 36
        return (20 + noise + 150 * mask).astype(np.uint8), mask
    mask = (abs(rows - top) < 5) & (abs(columns - left) < 5)
    return (120 + noise + 60 * (rows // 3 % 2) - 110 * mask).astype(np.uint8), mask


def write_organ(root: Path, kind: str, label: str | None = None, value: int = 1, first: int = 0) -> Path:
    """Six images with masks of one label (by default called as the kind) of that value, with a fixed split."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in (number for numbers in SIDES.values() for number in numbers):
        pixels, mask = picture(kind, first + number)
        Image.fromarray(pixels).save(root / "images" / f"im{number}.png")
        Image.fromarray((value * mask).astype(np.uint8)).save(root / "masks" / f"im{number}.png")
    (root / "split.json").write_text(json.dumps({side: [f"im{k}" for k in kept] for side, kept in SIDES.items()}))
    labels = {"background": 0, label or kind: value}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root

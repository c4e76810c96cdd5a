"""Small files in the layouts of the data sets, made by code, for the tests of the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image


def write_scan(path: Path, seed: int, channels: int = 0) -> None:
    """A CT-like scan of 12x11x6 voxels at 1x1x2 mm, 4-D with `channels`."""
    shape = (12, 11, 6) + (channels,) * bool(channels)
    values = np.random.default_rng(seed).normal(40, 200, shape).clip(-1000, 1500).astype(np.int16)
    write_nifti(path, values)


def write_label_map(path: Path, seed: int, ids: Sequence[int]) -> None:
    """Every id somewhere in a scan of the same size."""
    values = np.zeros((12, 11, 6), np.uint8)
    for k, id in enumerate(ids):
        values[k % 10 : k % 10 + 2, (3 * k + seed) % 9 :, k % 5 : k % 5 + 2] = id
    write_nifti(path, values)


def write_nifti(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def picture(seed: int, colour: bool = False) -> np.ndarray:
    """(40, 48) or (40, 48, 3) of smooth areas that look like no other seed's."""
    shape = (5, 6, 3) if colour else (5, 6)
    return np.random.default_rng(seed).integers(20, 230, shape, np.uint8).repeat(8, 0).repeat(8, 1)


def blob(top: int, left: int) -> np.ndarray:
    """A mask (40, 48) of 0 and 255."""
    mask = np.zeros((40, 48), np.uint8)
    mask[top : top + 12, left : left + 14] = 255
    return mask


def write_picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def run(script: Any, monkeypatch: pytest.MonkeyPatch, *given: object) -> None:
    """The script from its command line."""
    monkeypatch.setattr("sys.argv", ["prepare", *map(str, given)])
    script.main()

"""Masks that are outlines of what is meant are told; what is thin in truth is not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from vpt.data.doubts.contours import hollow_of, outlines

Draw = Callable[[int], np.ndarray]
SIZE = 96


def disc(k: int, radius: float = 30, place: tuple[int, int] = (48, 48)) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return ((x - place[0] - k % 5) / 1.2) ** 2 + (y - place[1]) ** 2 < radius**2


def line(mask: np.ndarray, width: int) -> np.ndarray:
    return mask & ~binary_erosion(mask, iterations=width)


def drawn(points: np.ndarray, width: int, closed: bool) -> np.ndarray:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    cv2.polylines(canvas, [points.astype(np.int32)], closed, 1, width)
    return canvas > 0


def wave(k: int) -> np.ndarray:
    x = np.linspace(4, 90, 30)
    return np.stack([x, 48 + 20 * np.sin(x / 9 + k)], 1)


OUTLINES: dict[str, Draw] = {
    "one pixel wide": lambda k: line(disc(k), 1),
    "two pixels wide": lambda k: line(disc(k), 2),
    "around it": lambda k: binary_dilation(disc(k), iterations=2) & ~disc(k),
    "drawn by hand": lambda k: drawn(np.array([[10, 20], [70, 12 + k], [84, 70], [30, 80]]), 2, True),
    "two of them": lambda k: line(disc(k, 15, (24, 24)), 1) | line(disc(k, 18, (66, 66)), 2),
    "a sheet of them": lambda k: np.logical_or.reduce(
        [line(disc(0, 9, (x, y)), 1) for x in (14, 45, 75) for y in (15, 70)]
    ),
    "two classes": lambda k: line(disc(k, 15, (24, 24)), 1) + 2 * line(disc(k, 18, (66, 66)), 1),
}


@pytest.mark.parametrize("how", OUTLINES)
@pytest.mark.parametrize("deep", [False, True])
def test_outlines_are_told(how: str, deep: bool) -> None:
    masks = [OUTLINES[how](k).astype(np.uint8)[..., None].repeat(4 if deep else 1, 2) for k in range(6)]
    (text,) = outlines([hollow_of(f"case{k}", mask) for k, mask in enumerate(masks)])
    assert text.startswith("6 of 6 masks (case0, case1, case2 and 3 more) are closed thin lines around")
    assert "fill them" in text


SOUND: dict[str, Draw] = {
    "filled": disc,
    "with a hole": lambda k: disc(k) & ~disc(k, 10),
    "a thick wall": lambda k: line(disc(k), 6),
    "a wall that is thin for what it holds": lambda k: line(disc(k, 9), 3),
    "a vessel": lambda k: drawn(wave(k), 2, False),
    "vessels that cross": lambda k: (
        drawn(wave(k), 2, False) | drawn(wave(k + 2), 2, False) | drawn(wave(k + 4), 1, False)
    ),
    "membranes of many cells": lambda k: (
        np.pad(np.ones((SIZE - 2, SIZE - 2), bool), 1)
        & ((np.add.outer(np.arange(SIZE), np.zeros(SIZE, int)) % 16 < 2) | (np.arange(SIZE) % 16 < 2))
    ),
    "an open line": lambda k: line(disc(k), 2) & (np.arange(SIZE) < 60 + k),
    "points": lambda k: np.random.default_rng(k).random((SIZE, SIZE)) < 0.01,
    "nothing": lambda k: np.zeros((SIZE, SIZE), bool),
}


@pytest.mark.parametrize("how", SOUND)
def test_what_is_thin_in_truth_is_not(how: str) -> None:
    assert outlines([hollow_of(str(k), SOUND[how](k).astype(np.uint8)[..., None]) for k in range(6)]) == []


def test_a_few_outlines_among_filled_ones_are_another_matter() -> None:
    masks = [line(disc(k), 1) if k < 3 else disc(k) for k in range(6)]
    assert outlines([hollow_of(str(k), mask.astype(np.uint8)[..., None]) for k, mask in enumerate(masks)]) == []

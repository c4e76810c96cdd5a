"""Numbers in masks that nobody named, and that are likely no labels of their own; and those that are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.labels import doubtful_numbers, unnamed_label

DOUBTED: dict[str, tuple[list[set[int]], str]] = {
    "a border of void": ([{1, 255}, {1, 255}, {1}], r"255 lies beside 1 in the same masks"),
    "void of many classes": ([{1, 7, 255}, {3}, {20, 255}], r"255 lies beside 1, 3, 7, 20 in"),
    "void of 16 bits": ([{1, 2, 65535}, {1}], r"65535 lies beside 1, 2"),
    "void in one mask": ([{1}] * 9 + [{1, 255}], r'"ignore": 255'),
    "1 and 100": ([{1}, {100}, {1}, {100}], r"one label alone, 1 in 2, 100 in 2; if that is one label"),
    "half and full": ([{128}, {255}, {255}], r"one label alone, 128 in 1, 255 in 2"),
    "three greys": ([{85}, {170}, {255}], r"one label alone"),
    "instances": ([{1, 2}, {1, 2, 3}, {1}, {1, 2, 3, 4, 5, 6}, {1, 2}], r"up to 1 in some and up to 6 in others"),
    "many instances": ([{*range(1, k + 1)} for k in (3, 9, 12, 5, 28)], r"join them: --labels '\{object: \[1, 2, 3, 4"),
}


@pytest.mark.parametrize("how", DOUBTED)
def test_numbers_that_are_likely_no_labels(how: str) -> None:
    held, said = DOUBTED[how]
    labels = {0: "background"} | {id: unnamed_label(id) for id in sorted(set().union(*held))}

    (found,) = doubtful_numbers(labels, held)

    assert re.search(said, found)
    assert doubtful_numbers({id: f"organ {id}" if id else "background" for id in labels}, held) == []


@pytest.mark.parametrize(
    "held",
    [
        [{255}] * 6,
        [{1, 2, 3}] * 6,
        [{1}, {2}, {1}, {2}, {3}],
        [{1, 2}, {1, 2, 3}, {1}, {1, 2, 3}],
        [{100, 200}, {100}, {200}],
        [{1, 2, 4, 8, 16}, {1, 2}, {4}, {8, 16}, {1}],
        [{85, 170, 255}, {255}],
        [set(), {1}, {1, 2}],
        [{1, 3, 4, 5, 6, 7}, {1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4}],
        [],
    ],
)
def test_numbers_that_may_well_be_labels(held: list[set[int]]) -> None:
    labels = {0: "background"} | {id: unnamed_label(id) for id in sorted(set[int]().union(*held))}
    assert doubtful_numbers(labels, held) == []


def written(root: Path, values: Callable[[int], dict[int, int]]) -> Path:
    """Images beside masks, of which each has a square for every value -> its side."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(6):
        mask = np.zeros((48, 64), np.uint8)
        for k, (value, side) in enumerate(values(number).items()):
            mask[4 + number : 4 + number + side, 3 + 15 * k : 3 + 15 * k + side] = value
        photo = np.random.default_rng(number).integers(40, 200, mask.shape).astype(np.uint8)
        Image.fromarray(photo).save(root / "images" / f"c{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"c{number}.png")
    return root


def test_check_warns_until_they_are_named(tmp_path: Path) -> None:
    root = written(tmp_path, lambda number: {1: 12, 255: 9})

    (found,) = [problem for problem in check_dataset(root).problems if "beside 1" in problem.text]
    assert (found.severity, found.file) == ("warning", "masks")

    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1, "ignore": 255}}))
    assert not any("beside 1" in problem.text for problem in check_dataset(root).problems)


def test_what_is_refused_is_not_doubted_again(tmp_path: Path) -> None:
    root = written(tmp_path, lambda number: {1 if number % 2 else 255: 12})

    assert sum("written in" in problem.text for problem in check_dataset(root).problems) == 1

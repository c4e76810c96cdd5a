"""The table of a training on a terminal: the last epochs, the best one, what fits."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from vpt.engine.table import LATEST, epoch_table

LABELS = {"dice_anterior": "Anterior", "dice_posterior": "Posterior"}
ROWS: list[dict[str, float]] = [
    {"epoch": e, "loss": 1 / e, "seconds": 9.6 * e, "dice": 0.5, "dice_anterior": 0.25, "dice_posterior": 0.75}
    for e in range(1, 13)
]


def drawn(*args: Any, width: int = 100) -> list[list[str]]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(epoch_table(*args, width))
    lines = console.export_text().splitlines()
    return [line.split() for line in lines if line.strip() and "─" not in line]


def test_it_shows_the_last_epochs_and_the_best_one_before_them() -> None:
    head, *rows = drawn(ROWS, LABELS, "dice", 2)

    assert head == ["epoch", "loss", "dice", "Anterior", "Posterior", "s"]
    assert [int(row[0]) for row in rows] == [2, *range(13 - LATEST, 13)]
    assert rows[0] == ["2", "0.500", "0.500", "0.250", "0.750", "19"]


def test_an_epoch_without_validation_has_no_scores() -> None:
    assert drawn([{"epoch": 1, "loss": 0.5, "seconds": 3}], LABELS, "dice", 0)[1] == ["1", "0.500", "-", "-", "-", "3"]


def test_labels_that_do_not_fit_are_left_out_and_that_is_said() -> None:
    many = {f"dice_{number}": f"organ{number}" for number in range(20)}
    row = {"epoch": 1, "loss": 0.5, "seconds": 3, "dice": 0.5, **dict.fromkeys(many, 0.5)}

    head, *rows = drawn([row], many, "dice", 1, width=80)

    assert head[-2:] == ["...", "s"]
    assert len(rows) == 1
    assert all("…" not in word for word in head)

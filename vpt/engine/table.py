"""While a run trains on a terminal: its last epochs and its best one, as a table that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

LATEST = 8  # epochs that are shown
GAP = 3  # columns of the terminal between two of the table


def epoch_table(
    rows: Sequence[Mapping[str, float]], shown: Mapping[str, str], score: str, best: int, width: int
) -> Table:
    """The best epoch is marked.

    rows: those of metrics.csv so far; shown, score: see `vpt.engine.job.Job`; best: which epoch is; width: columns of
    the terminal. Labels that do not fit it are left out, which `...` says; metrics.csv has them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    others = {key: name for key, name in shown.items() if key != score}
    keys = _fitting(others, width - sum(size + GAP for size in (5, 6, max(len(score), 5), 3, 5)))
    more = [""] if len(keys) < len(others) else []
    names = (shown.get(score, score), *(shown[key] for key in keys))
    for name in ("epoch", "loss", *names, *("..." for _ in more), "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in _chosen(rows, best):
        epoch, values = int(row["epoch"]), [_number(row, key) for key in (score, *keys)]
        cells = [f"{epoch}", _number(row, "loss"), *values, *more, f"{row['seconds']:.0f}"]
        table.add_row(*cells, style="bold green" if epoch == best else None)
    return table


def _chosen(rows: Sequence[Mapping[str, float]], best: int) -> list[Mapping[str, float]]:
    """The last ones, and the best one where it is longer ago."""
    before = [row for row in rows[:-LATEST] if row["epoch"] == best]
    return [*before, *rows[-LATEST:]]


def _fitting(shown: Mapping[str, str], width: int) -> list[str]:
    keys = []
    for key, name in shown.items():
        width -= max(len(name), 5) + GAP
        if width < 0:
            break
        keys.append(key)
    return keys


def _number(row: Mapping[str, float], key: str) -> str:
    return f"{row[key]:.3f}" if key in row else "-"

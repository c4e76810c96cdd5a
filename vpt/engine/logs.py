"""What a person reads of a run: train.log and metrics.csv."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from vpt.files import require_own, write_text
from vpt.progress import say


class Printed(logging.Handler):
    """Prints to whatever standard output is at the time, so that a live progress bar moves out of the way.

    What is told as `is_in_table` is seen there already.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "is_in_table", False):
            say(self.format(record))


def open_log(path: Path, terminal: bool = True) -> logging.Logger:
    """A logger that writes to `path` with times, and, unless told not to, to the terminal without.

    Raises VptError where a link or a pipe stands in its place.
    """
    require_own(path)
    log = logging.getLogger(f"vpt.run.{path.resolve()}")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(file)
    if terminal:
        printed = Printed()
        printed.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(printed)
    return log


def silent_log() -> logging.Logger:
    """The log of a process that trains with others, of whom only the first one speaks."""
    log = logging.getLogger("vpt.silent")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    return log


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """One row per epoch; an epoch without validation leaves its cells empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())

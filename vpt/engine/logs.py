"""What a person sees of a run: train.log, metrics.csv, TensorBoard, and progress.png as it goes on."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from vpt.engine.previews import Previews
from vpt.files import write_text
from vpt.report.pictures import read_png, write_progress


class Printed(logging.Handler):
    """Prints to whatever standard output is at the time, so that a live progress bar moves out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def open_log(path: Path, terminal: bool = True) -> logging.Logger:
    """A logger that writes to `path` with times, and, unless told not to, to the terminal without."""
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
    """Of a process that trains with others, of whom the first one speaks."""
    log = logging.getLogger("vpt.silent")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    return log


class Pictures:
    """The run so far, for people: progress.png, previews and TensorBoard. shown, score: see `write_progress`."""

    def __init__(self, run: Path, shown: dict[str, str], score: str, first_epoch: int, previews: Previews):
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.shown, self.score, self.previews = run, shown, score, previews
        self.board = SummaryWriter(run / "tensorboard", purge_step=first_epoch)

    def show(self, rows: Sequence[dict[str, float]]) -> None:
        write_progress(self.run / "progress.png", rows, self.shown, self.score, self.run.name)
        for key in rows[-1].keys() - {"epoch"}:
            self.board.add_scalar(key, rows[-1][key], int(rows[-1]["epoch"]))
        epoch = int(rows[-1]["epoch"])
        for name, path in self.previews.draw(epoch).items():
            self.board.add_image(f"previews/{name}", read_png(path), epoch, dataformats="HWC")
        self.board.flush()

    def close(self) -> None:
        self.board.close()


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """One row per epoch; an epoch without validation leaves its cells empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())

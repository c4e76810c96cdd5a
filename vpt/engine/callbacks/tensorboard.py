"""Scores and previews in the run's `tensorboard/`; every run has it, but those of a search."""

from __future__ import annotations

from vpt.engine.callbacks.base import Callback, End, Epoch, Start
from vpt.report.pictures import read_png


class TensorBoard(Callback):
    def on_start(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(start.run / "tensorboard", purge_step=start.epoch + 1)

    def on_epoch(self, epoch: Epoch) -> None:
        for key, value in epoch.scores.items():
            if key != "epoch":
                self.board.add_scalar(key, value, epoch.epoch)
        for name, path in epoch.pictures.items():
            self.board.add_image(f"previews/{name}", read_png(path), epoch.epoch, dataformats="HWC")
        self.board.flush()

    def on_end(self, end: End) -> None:
        self.board.close()

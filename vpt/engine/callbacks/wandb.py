"""A run in Weights & Biases, in the project that WANDB_PROJECT names, else `vpt`; WANDB_MODE=offline sends nothing."""

from __future__ import annotations

import os

from vpt.engine.callbacks.base import Callback, End, Epoch, Start
from vpt.files import write_text


class WandbRun(Callback):
    needs = "wandb"

    def on_check(self) -> None:
        import wandb

        if wandb.setup().settings.mode in ("online", "shared"):
            wandb.login(verify=True)

    def on_start(self, start: Start) -> None:
        import wandb

        own = start.run / "state" / "wandb_run"
        self.followed = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vpt"),
            name=start.run.name,
            id=own.read_text(encoding="utf-8") if own.is_file() else None,
            resume="allow",
            config=dict(start.config),
            dir=str(start.run),
            settings=wandb.Settings(console="off"),
        )
        write_text(own, self.followed.id)

    def on_epoch(self, epoch: Epoch) -> None:
        import wandb

        shown = {f"previews/{name}": wandb.Image(str(path)) for name, path in epoch.pictures.items()}
        self.followed.log({**epoch.scores, **shown}, step=epoch.epoch)

    def on_end(self, end: End) -> None:
        self.followed.summary.update({f"best/{key}": value for key, value in end.scores.items()})
        self.followed.finish(exit_code=0 if end.outcome == "done" else 1)

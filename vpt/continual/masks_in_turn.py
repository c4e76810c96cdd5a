"""Organs or sites that are segmented one task after another, each with prompts and a head of its own, or one set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpt.config import load_config
from vpt.continual.learner import Learner
from vpt.continual.mask_tasks import MaskTask, by_name, of_any_task, true_masks
from vpt.continual.protocol import Protocol
from vpt.engine.run import train
from vpt.scores.continual import mask_score
from vpt.use.by_task import SegmenterByTask
from vpt.use.load import load
from vpt.use.segmenter import Segmenter


class MasksInTurn(Learner):
    """Trains a run for every task, each beside those of the one before. Keeps no image of a task."""

    def __init__(self, method: str, protocol: Protocol, seed: int, out: Path, cache: Path):
        self.method, self.protocol, self.seed, self.out, self.cache = method, protocol, seed, out, cache
        self.runs: list[Path] = []
        self.segmenter: SegmenterByTask | None = None
        self.chosen: dict[tuple[str, str], bool] = {}
        self._found: dict[tuple[str, str], float] = {}  # the scores of the last asking

    def learn(self, task: MaskTask) -> None:
        """The next task, from its training cases."""
        values: dict[str, Any] = {
            "task": "segmentation",
            "data": {"path": str(task.path)},
            "start": {"task": task.name},
        }
        if self.runs:
            shared = self.method == "sequential"
            values["start"] |= {"path": str(self.runs[-1]), "adds": True, "shared": shared}
        else:
            values["prompts"] = self.protocol.prompts_of(self.method)
        overrides = {**self.protocol.settings, "seed": self.seed}
        config, run = load_config(values, overrides), self.out / f"{len(self.runs) + 1}"
        cache = self.cache / task.name  # cases of several tasks may have one name
        self.runs.append(train(config, run, resume=True, cache=cache, brief=True, alone=True))
        found = load(run, self.protocol.settings.get("device", "auto"))
        assert isinstance(found, Segmenter)
        self.segmenter = found if isinstance(found, SegmenterByTask) else SegmenterByTask({task.name: found})

    def scores(self, task: MaskTask, *, told: bool) -> dict[str, float]:
        """`mask_score` of each test case by its name, its task chosen by its features or told."""
        assert self.segmenter is not None
        segmenter = self.segmenter.of_task(task.name) if told else self.segmenter
        for case in task.tested:
            key = task.name, case.name
            if told and self.chosen.get(key):
                continue  # nothing is told that was not found
            with of_any_task():
                scan = segmenter.prepare(case.scan, force=True)
            found = by_name(segmenter.labels_of(scan), segmenter.labels)
            self._found[key] = mask_score(found, true_masks(task, case, scan.grid))
            if not told:
                self.chosen[key] = scan.task == task.name
        return {case.name: self._found[task.name, case.name] for case in task.tested}

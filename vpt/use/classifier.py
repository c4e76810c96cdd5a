"""New images and volumes: `vpt.load(run).classify(path)` gives a probability per class."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpt.data.cases import Case, find_scans, kind_of
from vpt.data.plan import Plan
from vpt.data.slice_stacks import prepare_stack
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.machine.memory import inference_batch
from vpt.machine.precision import Chosen, under_autocast
from vpt.model import PromptedModel, numbers_per_image
from vpt.progress import Tick, silent
from vpt.readers import Scan, reader_of
from vpt.tasks.classification import OnSlices, classify_stacks, to_probabilities
from vpt.use.archives import Failure, attempt, one_ahead, ready, require_kind
from vpt.vocabulary import Target

AT_ONCE = 32  # images in memory


class Classifier:
    """Images or volumes -> probabilities. Deterministic, keeps no state between them.

    classes: in the order of the probabilities; target: `classes` (one of them), `grades` (one of them, in an order) or
    `labels` (any number at once); temperature: what the logits are divided by; precision: see `Segmenter`.
    """

    def __init__(
        self,
        model: PromptedModel,
        plan: Plan,
        classes: Sequence[str],
        target: Target,
        device: torch.device,
        temperature: float = 1.0,
        precision: Chosen = "32-true",
    ):
        self.model = ready(model, device, precision)
        self.forward = under_autocast(OnSlices(self.model).eval().to(device), precision, device)
        self.plan = plan
        self.classes = tuple(classes)
        self.target = target
        self.device = device
        self.temperature = temperature
        self.batch_size = inference_batch(numbers_per_image(self.model.backbone.spec, plan.image_size), device)

    def classify(self, scan: Scan) -> dict[str, float]:
        """An image's path or pixels, a NIfTI path (several for several channels) or a nibabel image -> {class: p}.

        The probabilities sum to 1, but for `labels`, which have one each.

        Raises:
            VptError: what the readers refuse; an image of a model trained on volumes, and the other way round.
        """
        found = self.probabilities([self.prepare(scan)])[0]
        return dict(zip(self.classes, found.tolist(), strict=True))

    def prepare(self, scan: Any) -> np.ndarray:
        """A scan as `classify` takes it -> (S, 3, size, size) uint8, what the encoder is given."""
        require_kind(self.plan, scan)
        return prepare_stack(reader_of(scan).voxels(len(self.plan.channels)), self.plan)

    def probabilities(self, stacks: Sequence[np.ndarray] | np.ndarray, progress: Tick = silent) -> np.ndarray:
        """Prepared scans (N, S, 3, size, size) -> (N, K)."""
        logits = classify_stacks(self.forward, np.asarray(stacks), self.device, progress, self.batch_size)
        return to_probabilities(logits, self.target, self.temperature).numpy()


def classify_cases(
    classifier: Classifier, cases: Sequence[tuple[str, Sequence[Any]]], progress: Tick = silent
) -> tuple[list[str], np.ndarray, list[Failure]]:
    """Names and files of cases -> names of those that could be read, their probabilities (N, K), and the others.

    While the encoder runs, a thread prepares the next case.
    """
    names: list[str] = []
    found: list[np.ndarray] = [np.empty((0, len(classifier.classes)))]
    failures: list[Failure] = []
    most = max(1, AT_ONCE // (classifier.plan.slices or 1))
    waiting: list[np.ndarray] = []
    with closing(one_ahead(classifier.prepare, [files for _, files in cases])) as stacks:
        for done, ((name, files), prepared) in enumerate(zip(cases, stacks, strict=True), start=1):
            stack = attempt(name, files[0], prepared)
            if isinstance(stack, Failure):
                failures.append(stack)
            else:
                waiting.append(stack)
                names.append(name)
            if waiting and (len(waiting) == most or done == len(cases)):
                found.append(classifier.probabilities(waiting))
                waiting = []
            progress(done, len(cases), name)
    return names, np.concatenate(found), failures


def plan_predictions(scans: str | Path, out: Path, channels: int, overwrite: bool) -> tuple[list[Case], Path]:
    """What to classify, and the CSV to write: `out` itself, or predictions.csv in the folder `out`.

    Raises:
        VptError: no scans; the name of a mask; a file that is there already, unless `overwrite`; a folder that cannot
            be made.
    """
    cases = list(find_scans(scans, channels))
    if kind_of(out) and not out.is_dir():
        raise VptError(f"{out}: the model classifies, and its answer is a table; give FILE.csv or a folder")
    path = out if out.suffix.lower() == ".csv" else out / "predictions.csv"
    if path.exists() and not overwrite:
        raise VptError(f"{path}: exists already; add --overwrite, or choose another output")
    make_folder(path.parent, "choose another output")
    return cases, path

"""A trained model by its run or artifact: `vpt.load`."""

from __future__ import annotations

from pathlib import Path

from vpt.artifact import read_artifact, restore_model
from vpt.machine.device import choose_device
from vpt.machine.precision import Precision, choose_precision
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter


def load(
    run_or_artifact: str | Path,
    device: str = "auto",
    weights: str | Path | None = None,
    precision: Precision | None = None,
    compile: bool = False,
) -> Segmenter | Classifier:
    """A trained model, ready for new scans.

    Args:
        run_or_artifact: the folder of a run (its best artifact) or a `.safetensors` file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        weights: where the backbone's weights lie now, if elsewhere than in training.
        precision: `auto` (bfloat16 where the device computes with it), `32-true`, `bf16-mixed`, `16-mixed`; None takes
            what the training was told, `auto` unless someone changed it.
        compile: run the blocks through `torch.compile`: a minute or more for the first batch of a shape, then faster by
            some percent (docs/speed.md), so for many scans.

    Raises:
        VptError: not a run or artifact; a backbone whose weights are not those of the training.
    """
    artifact = read_artifact(run_or_artifact)
    chosen = choose_device(device)
    computes = choose_precision(precision or artifact.config.precision, chosen)
    model = restore_model(artifact, weights, chosen, computes)
    if compile:
        model.compile_blocks()
    if artifact.config.task == "segmentation":
        return Segmenter.from_model(model, artifact.plan, artifact.labels, chosen, computes, artifact.codes)
    classes, target = list(artifact.labels.values()), artifact.config.data.target or "classes"
    return Classifier.from_model(model, artifact.plan, classes, target, chosen, artifact.temperature, computes)

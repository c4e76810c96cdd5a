"""A trained model by its run or artifact: `vpt.load`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import torch

from vpt.artifact import Artifact, read_artifact
from vpt.artifact_tasks import answering
from vpt.errors import VptError
from vpt.machine.device import choose_device
from vpt.machine.precision import choose_precision
from vpt.machine.scarce import TO_ANSWER, require_room
from vpt.model import PromptedModel
from vpt.restoring import restore_model
from vpt.use.by_task import SegmenterByTask
from vpt.use.classifier import Classifier
from vpt.use.ensembles import require_alike, together
from vpt.use.inference import warn_of_precision
from vpt.use.known_task import of_task
from vpt.use.models import models_in
from vpt.use.planes import segmenter_of
from vpt.use.segmenter import Segmenter
from vpt.vocabulary import AskedDecision, Chosen, Mirror, Precision
from vpt.words import either

Answering = TypeVar("Answering", bound=Segmenter | Classifier)


def load(
    run_or_artifact: str | Path | Sequence[str | Path],
    device: str = "auto",
    weights: str | Path | None = None,
    precision: Precision | None = None,
    compile: bool = False,
    tta: bool = False,
    postprocess: bool = True,
    task: str | None = None,
    decide: AskedDecision = "auto",
) -> Segmenter | Classifier:
    """A trained model, ready for new scans; of several models the mean of their probabilities.

    Args:
        run_or_artifact: the folder of a run (its best artifact) or a `.safetensors` file; a list of them, or the folder
            of `vpt train --folds`, is an ensemble, whose models share the encoder that they leave frozen; the folder of
            `vpt compare` is the method that leads its table, see `vpt.use.models.winner_of`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        weights: where the backbone's weights lie now, if elsewhere than in training.
        precision: `auto` (bfloat16 where the device computes with it), `32-true`, `bf16-mixed`, `16-mixed`; None takes
            what the training was told, `auto` unless someone changed it.
        compile: run the blocks through `torch.compile`: a minute or more for the first batch of a shape, then faster by
            some percent (docs/speed.md), so for many scans.
        tta: the mean probability over every image and the mirror images that the model was trained on
            (`train.mirror`), for two or four times the time.
        postprocess: False leaves masks as they are where the training chose what to do with them
            (`train.postprocess`); an ensemble does what more than half of its models do.
        task: of a model that has learned several tasks one after another (`vpt train --continue`), the one that all
            scans are of: they are answered with its prompts and among its classes or labels alone.
        decide: how a mask is made of probabilities: every voxel's `likeliest` label, or the mask whose `dice` is
            expected to be highest, which is wider where the model doubts (`vpt.tasks.deciding`); `auto` as the training
            chose (`train.postprocess`), an ensemble as more than half of its models did. Which is better hangs on the
            data: ask the validation cases.

    Raises:
        VptError: not a run or artifact; a backbone whose weights are not those of the training; models that do not
            agree in task, labels, or how a scan becomes slices; tta of a model that saw no mirror images; a task that
            the model has not learned; a way to decide of a model that classifies.
    """
    require_switches(compile=compile, tta=tta, postprocess=postprocess)
    require_room(TO_ANSWER)
    artifacts = [read_artifact(path) for path in models_in(run_or_artifact)]
    require_alike(artifacts)
    chosen = choose_device(device)
    warn_of_precision((precision or artifact.config.precision for artifact in artifacts), chosen)

    def loaded(artifact: Artifact) -> Segmenter | Classifier:
        mirror = _mirror_of(artifact) if tta else "none"
        return _loaded(artifact, chosen, weights, precision, compile, mirror, postprocess)

    if artifacts[0].earlier:
        members = {name: loaded(each) for name, each in answering(artifacts[0]).items()}
        segmenters = {name: each for name, each in members.items() if isinstance(each, Segmenter)}
        return of_task(SegmenterByTask({name: decided(each, decide) for name, each in segmenters.items()}), task)
    return of_task(decided(together([loaded(artifact) for artifact in artifacts]), decide), task)


def require_switches(**given: Any) -> None:
    """Raise VptError for what is neither True nor False; a word such as "none" would count as True."""
    for name, value in given.items():
        if not isinstance(value, bool | np.bool_):
            raise VptError(f"{name} {value!r}: expected True or False")


def decided(model: Answering, decide: AskedDecision) -> Answering:
    """The model, told how its probabilities become a mask."""
    if decide not in get_args(AskedDecision):
        raise VptError(f"decide {decide!r}: expected {either(get_args(AskedDecision))}")
    if decide == "auto":
        return model
    if isinstance(model, Segmenter):
        model.decision = decide
    else:
        raise VptError(f"decide {decide!r}: is of masks, and the model classifies; leave it out")
    return model


def _mirror_of(artifact: Artifact) -> Mirror:
    mirror = artifact.config.train.mirror
    if mirror == "none":
        raise VptError(
            f"{artifact.path}: was trained on no mirror images, so there are none to average over (tta); leave it out, "
            "or train with --set train.mirror=horizontal"
        )
    return mirror


def _loaded(
    artifact: Artifact,
    device: torch.device,
    weights: str | Path | None,
    precision: Precision | None,
    compile: bool,
    mirror: Mirror,
    postprocess: bool,
) -> Segmenter | Classifier:
    computes = choose_precision(precision or artifact.config.precision, device)
    model = restore_model(artifact, weights, device, computes)
    if compile:
        model.compile_blocks()
    return ready(artifact, model, device, computes, mirror, postprocess)


def ready(
    artifact: Artifact,
    model: PromptedModel,
    device: torch.device,
    precision: Chosen,
    mirror: Mirror = "none",
    postprocess: bool = True,
) -> Segmenter | Classifier:
    """An artifact's restored model as what answers for its task."""
    if artifact.config.task == "segmentation":
        steps, given = artifact.postprocess if postprocess else None, (artifact.plan, artifact.labels)
        found = segmenter_of(model, *given, device, precision, artifact.codes, mirror, steps, artifact.familiar)
        found.decision = artifact.decision
        return found
    classes, target = list(artifact.labels.values()), artifact.config.data.target or "classes"
    return Classifier.from_model(model, artifact.plan, classes, target, device, artifact.temperature, precision, mirror)

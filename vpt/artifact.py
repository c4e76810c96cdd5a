"""What training leaves behind: a safetensors file of the trained tensors, its header says all it takes to use them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vpt.artifact_doubts import require_sane
from vpt.artifact_header import (
    BackboneHeader,
    Header,
    TaskHeader,
    is_newer,
    read_familiar,
    read_header,
    read_plan,
    refusal,
    unusable,
)
from vpt.backbones import BackboneSpec
from vpt.backbones.origin import UNKNOWN, Origin
from vpt.config import Config, ResolvedConfig, as_written, build_config, unknown_keys
from vpt.data.familiar import Familiar
from vpt.data.plan import Plan
from vpt.data.postprocess import Steps
from vpt.errors import VptError, VptWarning
from vpt.files import holds_file
from vpt.model import PromptedModel
from vpt.readers import Code
from vpt.sections import HEADS, PROMPTS, TUNINGS
from vpt.tensor_files import read_tensors, write_tensors
from vpt.versions import version_of
from vpt.vocabulary import Decision

FORMAT = "vpt-artifact/1"
ENDING = ".safetensors"
GIVE = "give a run's folder (of `vpt train`) or an artifact (.safetensors)"


@dataclass(frozen=True)
class Artifact:
    """An artifact that was read.

    labels: id -> name with background, of a classifier the classes in their order; preprocessing: mean, std (of images
    in [0, 1]) and padding that the backbone was given, empty in artifacts that did not record it yet; scores: of the
    validation split; temperature: what the logits of a classifier are divided by; pool: the backbone's way to one
    vector, None before version 0.2.0, see `_encoder_of`; origin: whose its weights are, None where there are none, and
    in artifacts that did not record it yet; codes: of labels by name, for DICOM segmentations; postprocess: what is
    done with the masks of each label, nothing in artifacts that did not choose yet; decision: how a mask is made of
    probabilities; familiar: the training cases as the encoder sees them, None in artifacts that did not keep them yet,
    and of classifiers; earlier: of segmentation, the tasks that were learned before this one, in their order, each
    with prompts and a head of its own.
    """

    path: Path
    config: ResolvedConfig
    plan: Plan
    labels: dict[int, str]
    backbone_sha256: str
    preprocessing: dict[str, Any]
    versions: dict[str, str]
    scores: dict[str, Any]
    counts: dict[str, int]
    tensors: dict[str, Tensor]
    temperature: float = 1.0
    pool: str | None = None
    origin: Origin | None = None
    codes: dict[str, Code] = field(default_factory=dict)
    postprocess: Steps = field(default_factory=dict)
    decision: Decision = "likeliest"
    familiar: Familiar | None = None
    earlier: Mapping[str, Artifact] = field(default_factory=dict)


def save_artifact(
    path: Path,
    model: PromptedModel,
    *,
    config: Config,
    plan: Plan,
    labels: dict[int, str],
    scores: dict[str, Any],
    temperature: float = 1.0,
    codes: Mapping[str, Code] | None = None,
    postprocess: Steps | None = None,
    decision: Decision = "likeliest",
    earlier: Mapping[str, Artifact] | None = None,
) -> None:
    """Write the trained tensors and their header, completely or not at all. For the arguments see `Artifact`."""
    spec = model.backbone.spec
    artifact = Artifact(
        path=path,
        config=config.resolved(config.task or "segmentation", strict=False),
        plan=plan,
        labels=labels,
        backbone_sha256=model.backbone.sha256,
        preprocessing=preprocessing_of(spec),
        versions={name: found for name in ("vpt", "torch", "timm", "monai") if (found := version_of(name)) is not None},
        scores=scores,
        counts=model.count_parameters(),
        tensors={name: t.detach().cpu().contiguous() for name, t in model.trained_state().items()},
        temperature=temperature,
        pool=spec.pool,
        origin=model.backbone.origin,
        codes=dict(codes or {}),
        postprocess=postprocess or {},
        decision=decision,
        earlier=earlier or {},
    )
    header, tensors = _header(artifact, config, spec.name), dict(artifact.tensors)
    for number, (task, each) in enumerate(artifact.earlier.items()):
        header["earlier"] = [*header.get("earlier", []), {"task": task} | _header(each, each.config)]
        tensors |= {f"{_place(number)}{name}": tensor for name, tensor in each.tensors.items()}
    write_tensors(path, tensors, {"format": FORMAT, "vpt": json.dumps(header)})


def _header(artifact: Artifact, config: Config, name: str | None = None) -> dict[str, Any]:
    """All but the tensors and the tasks before, as `read_artifact` reads it. config: as it is to be kept."""
    origin, familiar = artifact.origin, artifact.familiar
    unusual: dict[str, Any] = {"familiar": familiar.to_header()} if familiar else {}
    if artifact.decision != "likeliest":  # what an earlier version is to be warned of
        unusual["decision"] = artifact.decision
    return {
        "config": config.model_dump(mode="json"),
        "plan": artifact.plan.model_dump(mode="json"),
        "labels": {str(k): v for k, v in artifact.labels.items()},
        "backbone": {
            "name": name or config.backbone.name,
            "sha256": artifact.backbone_sha256,
            "preprocessing": artifact.preprocessing,
            "pool": artifact.pool,
            "origin": origin and origin.weights,
            "licence": origin and origin.licence,
        },
        "versions": artifact.versions,
        "scores": artifact.scores,
        "temperature": artifact.temperature,
        "counts": artifact.counts,
        "codes": artifact.codes,
        "postprocess": {str(label): list(todo) for label, todo in artifact.postprocess.items()},
    } | unusual


def _place(number: int) -> str:
    """What the names of the tensors of the task before with this number begin with."""
    return f"earlier.{number}."


def add_familiar(path: Path, familiar: Familiar) -> None:
    """Keep in an artifact how its training cases look to its encoder; earlier versions read it all the same."""
    tensors, metadata = read_tensors(path, "train it again")
    header = json.loads(metadata["vpt"]) | {"familiar": familiar.to_header()}
    write_tensors(path, tensors, metadata | {"vpt": json.dumps(header)})


def preprocessing_of(spec: BackboneSpec) -> dict[str, Any]:
    return {"mean": list(spec.mean), "std": list(spec.std), "padding": spec.padding}


def find_artifact(run_or_artifact: str | Path) -> Path:
    """A run's folder -> its `best.safetensors`; a file -> itself.

    Where only `last.safetensors` is there it is taken, with a `VptWarning`. Raises VptError where neither is.
    """
    path = Path(run_or_artifact)
    if path.is_file():
        return path
    if holds_file(path / "best.safetensors"):
        return path / "best.safetensors"
    if holds_file(last := path / "last.safetensors"):
        told = (
            f"{path}: holds no best.safetensors (no validation has run yet, or the file was lost), so last.safetensors "
            "is used, the weights of the last step, whose validation may be worse"
        )
        warnings.warn(told, VptWarning, stacklevel=1)  # one place, so that it is said once
        return last
    what = "holds no best.safetensors or last.safetensors" if path.is_dir() else "no such file or folder"
    raise VptError(f"{path}: {what}; {GIVE}")


def read_artifact(run_or_artifact: str | Path) -> Artifact:
    """Header and tensors; nothing of the backbone is loaded yet.

    Raises:
        VptError: not an artifact, written by a newer format, damaged.
    """
    path = find_artifact(run_or_artifact)
    again = "copy it again from where it was trained" if path.suffix.lower() == ENDING else GIVE
    tensors, metadata = read_tensors(path, again, lambda metadata: _read_settings(path, metadata))
    header = _read_settings(path, metadata)
    require_sane(tensors, path)
    earlier = {}
    for number, each in enumerate(header.earlier):
        place = _place(number)
        own = {name.removeprefix(place): tensors.pop(name) for name in list(tensors) if name.startswith(place)}
        earlier[each.task] = _artifact(path, each, own)
    return _artifact(path, header, tensors, earlier)


def _artifact(
    path: Path, header: TaskHeader, tensors: dict[str, Tensor], earlier: Mapping[str, Artifact] | None = None
) -> Artifact:
    return Artifact(
        path=path,
        config=_read_config(header, path),
        plan=read_plan(header, path),
        labels=header.labels,
        backbone_sha256=header.backbone.sha256,
        preprocessing=header.backbone.preprocessing,
        versions=header.versions,
        scores=header.scores,
        counts=header.counts,
        tensors=tensors,
        temperature=header.temperature,
        pool=header.backbone.pool,
        origin=_origin(header.backbone),
        codes=header.codes,
        postprocess=header.postprocess,
        decision=header.decision,
        familiar=read_familiar(header, path),
        earlier=earlier or {},
    )


def _read_settings(path: Path, metadata: Mapping[str, str]) -> Header:
    """What a file's metadata say, each part doubted before it is believed."""
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format mark")
        if not found.startswith(FORMAT.partition("/")[0]):
            raise VptError(
                f"{path}: tensors of something else (found {found}, expected {FORMAT}); {GIVE}; weights of an encoder "
                "go with --weights"
            )
        raise VptError(
            f"{path}: not an artifact that this version reads (found {found}, expected {FORMAT}); update vpt"
        )
    header = read_header(metadata.get("vpt"), path)
    for each in (header, *header.earlier):
        _read_config(each, path)
        read_plan(each, path)
    return header


def _origin(header: BackboneHeader) -> Origin | None:
    return None if header.origin is None else Origin(header.origin, header.licence or UNKNOWN)


def _require_installed(values: Mapping[str, Any], path: Path) -> None:
    """Refuse an artifact whose method or head is none of this package, nor of another that is installed here."""
    for room in (PROMPTS, TUNINGS, HEADS):
        section = values.get(room.what)
        name = section.get(room.key) if isinstance(section, Mapping) else None
        if isinstance(name, str) and name not in room.names():
            raise VptError(
                f"{path}: {room.what}: no {room.key} of vpt or of an installed package is called {name!r}; install the "
                "package that brings it (docs/extending.md), or copy the file again if there is none"
            )


def _read_config(header: TaskHeader, path: Path) -> ResolvedConfig:
    """The config of an artifact; those written before there were two tasks are of segmentation."""
    values = as_written(header.config)
    if unknown := unknown_keys(values):
        raise refusal(header, path, unknown)
    if not is_newer(header.versions):
        _require_installed(values, path)
    try:
        config = build_config(values, str(path))
        return config.resolved(config.task or "segmentation", strict=False)
    except VptError as error:
        raise unusable(header.versions, path, str(error)) from error

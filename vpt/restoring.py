"""An artifact and its encoder -> the trained model, where the encoder's weights are those of the training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vpt.artifact import Artifact, preprocessing_of
from vpt.artifact_doubts import require_no_address, require_plausible
from vpt.artifact_header import is_newer, unusable
from vpt.backbones import Backbone, BackboneSpec, describe_backbone
from vpt.backbones.families import family_of, require_known
from vpt.backbones.preprocessing import is_backbone
from vpt.backbones.vit_models import EARLIER
from vpt.backbones.weights import require_fit
from vpt.building import FROZEN, build_model, load_encoder, shared_encoder
from vpt.config.run import BackboneConfig
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.vocabulary import Chosen

POOLED = ".fc_norm."  # a ViT's norm of pooled tokens, which `partial`, `bias` and `ssf` left frozen in earlier versions


@torch.inference_mode(False)  # as `load_backbone`: others share the encoder
def restore_model(
    artifact: Artifact,
    weights: str | Path | None = None,
    device: torch.device | None = None,
    precision: Chosen = "32-true",
) -> PromptedModel:
    """The trained model in eval mode, on that device and in that precision; without a device on the CPU, untouched.

    Models on one device that leave the encoder frozen share it. `weights`: where the backbone's weights lie now, if
    elsewhere than in training; what the embedded encoders had in earlier versions is found by itself.

    Raises:
        VptError: the backbone's weights are not those of the training.
    """
    config, size = artifact.config, artifact.plan.image_size
    if weights is None and config.backbone.weights is None:
        weights = EARLIER.get(artifact.backbone_sha256)
    require_no_address(config.backbone, weights, artifact.path)
    _require_known(artifact, _name(config.backbone, weights))
    encoder = _encoder_of(artifact, weights)
    require_plausible(
        config, artifact.plan, len(artifact.labels), _spec(encoder, weights), artifact.tensors, artifact.path
    )
    if device is not None and config.tuning.method == FROZEN:
        backbone = shared_encoder(encoder, size, device, precision, weights)
    else:
        backbone = load_encoder(encoder, size, weights)
    _require_same_weights(artifact, backbone, weights)
    model = build_model(config, artifact.plan, len(artifact.labels), backbone)
    if artifact.preprocessing not in ({}, now := preprocessing_of(model.backbone.spec)):
        raise VptError(
            f"{artifact.path}: trained on images with {artifact.preprocessing}, but {config.backbone.name} is given "
            f"{now} here; keep beside its weights what lay there in training (preprocessor_config.json, config.json), "
            f"or use vpt {artifact.versions.get('vpt', 'of the training')}"
        )
    load_trained(model, artifact.tensors, artifact.path)
    return model.eval()


def _require_known(artifact: Artifact, name: str) -> None:
    """An encoder, or an option of one, that came with a later version is told as such."""
    try:
        require_known(name, artifact.config.backbone.options)
    except VptError as error:
        if is_newer(artifact.versions):
            raise unusable(artifact.versions, artifact.path, str(error)) from error
        raise VptError(f"{artifact.path}: {error}") from error


def _encoder_of(artifact: Artifact, weights: str | Path | None) -> BackboneConfig:
    """The backbone's section. Classifiers from before version 0.2.0 read the vector that pooling "plain" makes."""
    config = artifact.config.backbone
    if artifact.pool is not None or artifact.config.task != "classification":
        return config
    name = _name(config, weights)
    if "pooling" not in family_of(name).options.model_fields:
        return config
    if describe_backbone(name, **config.options).pool == "cls":  # as ever; and others may share the encoder
        return config
    return config.model_copy(update={"options": config.options | {"pooling": "plain"}})


def encoder_of(artifact: Artifact, weights: str | Path | None = None) -> BackboneConfig:
    """The backbone's section as it is loaded now; weights: as of `restore_model`."""
    own = artifact.config.backbone
    if weights is None and own.weights is None:
        weights = EARLIER.get(artifact.backbone_sha256)
    encoder = _encoder_of(artifact, weights)
    if weights is None:
        return encoder
    name = _name(own, weights)
    return encoder.model_copy(update={"name": name, "weights": None if name != own.name else str(weights)})


def _name(config: BackboneConfig, weights: str | Path | None) -> str:
    return str(weights) if weights is not None and is_backbone(weights) else config.name


def _spec(config: BackboneConfig, weights: str | Path | None) -> BackboneSpec:
    """Of the encoder at its native size, nothing of it in memory."""
    return describe_backbone(_name(config, weights), **config.options)


def _require_same_weights(artifact: Artifact, backbone: Backbone, weights: str | Path | None) -> None:
    if backbone.sha256 == artifact.backbone_sha256:
        return
    config = artifact.config.backbone
    found = weights or config.weights or f"the pretrained weights of {config.name}"
    raise VptError(
        f"{artifact.path}: trained on {config.name} with weights of SHA-256 "
        f"{artifact.backbone_sha256[:16]}..., found {backbone.sha256[:16]}... in {found}; "
        "give the weights it was trained on with --weights FILE"
    )


def load_trained(model: PromptedModel, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy trained tensors into the model in place; names and shapes must be exactly what trains."""
    own = model.trained_state()
    if not any(POOLED in name for name in tensors):
        own = {name: tensor for name, tensor in own.items() if POOLED not in name}
    require_fit(own, tensors, path, "the prompts and head of its own config")
    if odd := [name for name in own if own[name].is_floating_point() != tensors[name].is_floating_point()]:
        raise VptError(
            f"{path}: {odd[0]} is of {tensors[odd[0]].dtype}, expected {own[odd[0]].dtype}; copy the file again from "
            "where it was trained"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

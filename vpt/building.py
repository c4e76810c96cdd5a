"""From a config and a plan to a model; an encoder is loaded once for all that share it."""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch

from vpt.backbones import Backbone, load_backbone
from vpt.backbones.preprocessing import is_backbone
from vpt.backbones.weights import weights_file
from vpt.config import Config, ResolvedConfig
from vpt.config.run import BackboneConfig
from vpt.contract import called
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.foreign import blaming
from vpt.heads import Answer, ClassifyHead
from vpt.machine.bits import Content, contents
from vpt.machine.precision import prepare_frozen
from vpt.mixing import Mixing
from vpt.model import PromptedModel
from vpt.vocabulary import NO_ENCODER, Chosen
from vpt.words import listed

FROZEN = "prompts"  # the tuning that leaves an encoder as it is, so that models can share it

_loaded: WeakValueDictionary[tuple[str, ...], Backbone] = WeakValueDictionary()
_as_loaded: WeakKeyDictionary[Backbone, dict[str, Content]] = WeakKeyDictionary()


def build_model(config: Config, plan: Plan, classes: int, backbone: Backbone | None = None) -> PromptedModel:
    """The model of a config: its encoder at the plan's image size, prompts, head, and what tuning adds.

    Where the plan has more channels than an encoder takes, the model mixes them. `fair` may add to its images.
    `backbone` is taken where it is given (tuning changes it), else one is loaded for this model alone.
    """
    if backbone is None:
        backbone = load_encoder(config.backbone, plan.image_size)
    resolved = config.resolved(config.task or "segmentation", strict=False)
    require_together(resolved, backbone.spec.depth > 0)
    answer = Answer(classes, config.data.target or "classes", plan.slices is not None)
    with blaming(resolved.head, doing="build"):
        head = resolved.head.build(backbone, answer)
    mixing = Mixing(len(plan.channels)) if plan.mixes else None
    trigger = None if config.fair is None else config.fair.trigger(plan.image_size)
    with blaming(config.prompts, doing="build"):
        prompts = config.prompts.build_for(backbone.spec, classes)
    model = PromptedModel(backbone, prompts, head, mixing, trigger)
    if config.task == "classification" and not isinstance(head, ClassifyHead):
        raise VptError(
            f"{called(head)}: a head that classifies derives from vpt.ClassifyHead, which pools an image's tokens and "
            "weighs a volume's slices; derive it from that (docs/extending.md)"
        )
    with blaming(config.tuning, doing="apply"):
        config.tuning.apply(model)
    return model


def require_together(config: ResolvedConfig, encoder: bool) -> None:
    """Raise VptError unless there is an encoder that the head reads, or neither, and then nothing to prompt or tune."""
    if encoder and config.head.encoded:
        return
    alone = {
        "backbone.name": (config.backbone.name, NO_ENCODER, not encoder),
        "prompts.method": (config.prompts.method, "none", config.prompts.method == "none"),
        "tuning.method": (config.tuning.method, FROZEN, config.tuning.method == FROZEN),
        "head.kind": (config.head.kind, "unet", not config.head.encoded),
    }
    wrong = {key: (found, wanted) for key, (found, wanted, fits) in alone.items() if not fits}
    if wrong:
        raise VptError(
            "backbone none and head unet: a network of its own on the images, with no encoder to prompt, tune or read, "
            f"but found {listed(f'{key}={found}' for key, (found, _) in wrong.items())}; "
            f"set {listed(f'{key}={wanted}' for key, (_, wanted) in wrong.items())}"
        )


def load_encoder(config: BackboneConfig, image_size: int, weights: str | Path | None = None) -> Backbone:
    """An encoder of one's own, on the CPU in float32.

    `weights` replaces the config's: a file or a folder with one, or a folder that describes its encoder itself.
    """
    name = config.name
    if weights is not None and is_backbone(weights):
        name, weights = str(weights), None
    return load_backbone(name, weights=weights or config.weights, image_size=image_size, **config.options)


def shared_encoder(
    config: BackboneConfig,
    image_size: int,
    device: torch.device,
    precision: Chosen,
    weights: str | Path | None = None,
) -> Backbone:
    """An encoder on its device, ready to compute in that precision: the same one for all who ask while anyone has it.

    For models that leave it frozen. A file of weights that was written again is loaded again, and so is an encoder that
    somebody has changed or lets train.
    """
    given = weights or config.weights
    file = weights_file(given) if given is not None else None
    stat = file.stat() if file is not None and file.is_file() else None
    version = (str(stat.st_size), str(stat.st_mtime_ns)) if stat else ()
    options = sorted(map(str, config.options.items()))
    key = (config.name, str(given), str(image_size), str(device), precision, *version, *options)
    backbone = _loaded.get(key)
    if backbone is None or any(each.requires_grad for each in backbone.parameters()) or _is_changed(backbone):
        backbone = load_encoder(config, image_size, weights).to(device)
        prepare_frozen(backbone, precision)
        _loaded[key], _as_loaded[backbone] = backbone, contents(backbone)
    return backbone


def _is_changed(backbone: Backbone) -> bool:
    return contents(backbone) != _as_loaded[backbone]

"""A timm model of one's own with prompts in it, for a loop of one's own: `vpt.wrap`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from weakref import WeakSet

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vpt.backbones.base import Backbone, BackboneSpec
from vpt.backbones.tokens import Features
from vpt.backbones.vit_models import taken_apart
from vpt.contract import require_part
from vpt.errors import VptError
from vpt.foreign import blaming
from vpt.machine.bits import contents
from vpt.model import encode
from vpt.prompts.base import Prompts, require_fit
from vpt.sections import PROMPTS
from vpt.words import with_article

BLOCKS = {"blocks", "layers", "stages"}  # what timm calls the parts that are run part by part
_TAKEN: WeakSet[nn.Module] = WeakSet()  # models that are no longer whole


def wrap(model: nn.Module, prompts: str | Mapping[str, Any] | Prompts = "deep:10") -> Wrapped:
    """A ViT of timm's with prompts in its frozen blocks: images in, what its own head makes of them out.

        model = vpt.wrap(timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=5), prompts="deep:10")
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)

    Args:
        model: a `VisionTransformer`, `Eva`, Swin, Hiera or `HieraDet` with the weights that shall stay; it is taken
            apart, so use it no more.
        prompts: a method and its number, "deep:10", "shallow:50", "none"; its settings as in a config,
            {"method": "deep", "count": 10, "blocks": "last:4"}; or prompts that were made for its spec. They move to
            the model's device and type.

    Raises:
        VptError: a model of another kind, one that was taken apart before, or with hooks; a method or setting that is
            not known; a method that adds to the loss.
    """
    if model in _TAKEN:
        raise VptError(
            f"{type(model).__name__}: this model was wrapped before, which took its classifier; make another one, or "
            "wrap a copy of it (copy.deepcopy) each time"
        )
    if not isinstance(model, nn.Module):
        raise VptError(f"model: {with_article(type(model).__name__)}, expected one of timm's, as create_model makes it")
    _require_no_hooks(model)
    section = prompts if isinstance(prompts, Prompts) else _section(prompts)
    with _whole_on_failure(model):
        backbone, head = taken_apart(model, type(model).__name__)
        own = section
        if not isinstance(section, Prompts):
            with blaming(section, doing="build"):
                own = section.build(backbone.spec)
        require_part(own, Prompts)
        require_fit(own, backbone.spec)
        if type(own).penalty is not Prompts.penalty:
            raise VptError(
                f"prompts: {type(own).__name__} adds to the loss, which a loop of your own does not see, so it would "
                "train as another method; choose deep, shallow or another that adds nothing, or train with `vpt train`"
            )
    _TAKEN.add(model)
    like = next(p for p in backbone.parameters() if p.is_floating_point())
    return Wrapped(backbone, own.to(like.device, like.dtype), head)


def _require_no_hooks(model: nn.Module) -> None:
    """Refuse what would be passed by in silence: the blocks are run part by part here, see `Backbone.block`."""
    for name, module in model.named_modules():
        passed_by = not name or name.partition(".")[0] in BLOCKS
        if passed_by and (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)):
            raise VptError(
                f"{type(model).__name__}: {name or 'it'} has hooks or a `forward` of its own, which would not act, "
                "since a wrapped model runs the parts of its blocks itself; remove them first, and read features from "
                "`Wrapped.features`"
            )


@contextmanager
def _whole_on_failure(model: nn.Module) -> Iterator[None]:
    """A context after which the model is as it was if anything goes wrong, so that the call can be made again."""
    parts = [(each, {name: _copied(held) for name, held in vars(each).items()}) for each in model.modules()]
    trains = [(each, each.requires_grad) for each in model.parameters()]
    try:
        yield
    except BaseException:
        for each, held in parts:
            vars(each).clear()
            vars(each).update(held)
        for parameter, trained in trains:
            parameter.requires_grad_(trained)
        raise


def _copied(held: Any) -> Any:
    """A copy of a module's dictionary (parts, parameters, buffers, hooks); anything else as it is."""
    return held.copy() if isinstance(held, dict) else held


def _section(prompts: str | Mapping[str, Any]) -> Any:
    if not isinstance(prompts, str | Mapping):
        found = with_article(type(prompts).__name__)
        raise VptError(f"prompts: {found}, expected 'deep:10' or the like, or settings, {{'method': 'deep'}}")
    if isinstance(prompts, str):
        method, colon, number = prompts.partition(":")
        if colon and not number.isdecimal():
            raise VptError(f"prompts {prompts!r}: after the colon comes how many, as in deep:10")
        prompts = {"method": method, **({"count": int(number)} if colon else {})}
    named = {"method": "deep"} | dict(prompts)
    section: Any = PROMPTS.section(named["method"])
    try:
        chosen = section.model_validate(named)
    except ValidationError as error:
        problem, known = error.errors()[0], ", ".join(section.model_fields)
        where = ".".join(map(str, problem["loc"]))
        raise VptError(
            f"prompts: {where}={problem['input']!r} ({problem['msg']}); {named['method']} has {known}"
        ) from error
    if getattr(chosen, "init", "uniform") != "uniform":
        raise VptError(
            f"prompts: init={chosen.init} starts from tokens of training images, which `wrap` is not given; leave it "
            "out, and call vpt.prompts.starts.tokens.initialise(model.backbone, model.prompts, batches, how="
            f"{chosen.init!r}) before training"
        )
    return chosen


class Wrapped(nn.Module):
    """A frozen encoder, prompts and a head: normalised images (B, 3, H, W) -> logits (B, K), or of no head a vector.

    What trains is what has `requires_grad`. `state_dict` holds that, what of the encoder is not as it came, and which
    encoder and prompts it belongs to (SHA-256 of the weights that the encoder came with; the method, and the blocks
    that it acts in, as JSON); it is loaded into the same ones only. The encoder stays in eval mode whatever `train`
    says.

    Set `checkpointing` to trade time for memory in training.
    """

    encoder_sha256: Tensor
    prompts_json: Tensor

    def __init__(self, backbone: Backbone, prompts: Prompts, head: nn.Module):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.prompts = prompts
        self.head = head.requires_grad_(True)
        self.checkpointing = False
        self._came_as, self._changed = contents(backbone), set[str]()
        self.register_buffer("encoder_sha256", torch.tensor(list(bytes.fromhex(backbone.sha256)), dtype=torch.uint8))
        self.register_buffer("prompts_json", torch.tensor(list(_described(prompts).encode()), dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_without_encoder)
        self.train()

    @property
    def spec(self) -> BackboneSpec:
        """Image size, patch, blocks; mean and deviation that images are normalised with."""
        return self.backbone.spec

    def features(self, images: Tensor) -> Features:
        """Of normalised images (B, 3, H, W): the grid of patches, CLS and registers, the pooled vector.

        Raises VptError for images that do not fit the encoder, and for those of another floating type than it has.
        """
        self.backbone.require_images(images)
        own = next(p for p in self.backbone.parameters() if p.is_floating_point()).dtype
        if images.dtype != own and not torch.is_autocast_enabled(images.device.type):
            raise VptError(f"images of {images.dtype}, and a model of {own}; give images.to({own}), or use autocast")
        return encode(self.backbone, self.prompts, images, checkpointing=self.checkpointing)

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images)
        return self.head(found.prefix[:, 0] if found.pooled is None else found.pooled)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def state_dict(self, *args: Any, prefix: str = "", **more: Any) -> Any:
        """What training leaves: prompts, head, what of the encoder trains or is not as it came, and the hash of the
        weights that it came with.
        """
        state = super().state_dict(*args, prefix=prefix, **more)
        own = f"{prefix}backbone."
        changed = self._changed_so_far()
        kept = {
            f"{own}{name}" for name, each in self.backbone.named_parameters() if each.requires_grad or name in changed
        }
        for name in [name for name in state if name.startswith(own) and name not in kept]:
            del state[name]
        return state

    def _changed_so_far(self) -> set[str]:
        """Parameters of the encoder that are not as they came; of such as somebody has put there nothing is known."""
        now = contents(self.backbone)
        return self._changed | {name for name, content in now.items() if self._came_as.get(name, content) != content}

    def _apply(self, *args: Any, **more: Any) -> Self:
        """Of a model that moves, or is of another type from now on, the numbers are others, but not learned."""
        self._changed = self._changed_so_far()
        found = super()._apply(*args, **more)
        self._came_as = contents(self.backbone)
        return found

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        theirs = state_dict.get(f"{prefix}encoder_sha256")
        if theirs is not None and not torch.equal(theirs.cpu(), self.encoder_sha256.cpu()):
            raise VptError(
                f"the state belongs to an encoder whose weights have SHA-256 {bytes(theirs.tolist()).hex()[:16]}..., "
                f"this one's have {self.backbone.sha256[:16]}...; wrap the model that it was trained on"
            )
        if (theirs := state_dict.get(f"{prefix}prompts_json")) is not None:
            _require_same_prompts(theirs, self.prompts_json)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _without_encoder(module: Wrapped, keys: Any) -> None:
    """The encoder's own tensors are not missing from a state: they were never part of it.

    Nor is what prompts they are, which states of version 0.6 and before do not say.
    """
    own = {f"backbone.{name}" for name in module.backbone.state_dict()} | {"prompts_json"}
    keys.missing_keys[:] = [
        key for key in keys.missing_keys if key not in own and not any(key.endswith(f".{name}") for name in own)
    ]


def _described(prompts: Prompts) -> str:
    """The method and its plain attributes, as JSON: tensors of equal shapes may belong to other blocks and methods."""
    plain = {
        name: value
        for name, value in vars(prompts).items()
        if not name.startswith("_") and name != "training" and not isinstance(value, nn.Module | Tensor)
    }
    return json.dumps({"method": type(prompts).__name__} | plain, sort_keys=True, default=str)


def _require_same_prompts(theirs: Tensor, own: Tensor) -> None:
    found, expected = (bytes(each.to(torch.uint8).tolist()).decode(errors="replace") for each in (theirs, own))
    if found != expected:
        raise VptError(
            f"the state belongs to prompts that are {found}, this model's are {expected}; wrap the model with the "
            "method and settings that it was trained with"
        )

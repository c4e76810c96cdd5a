"""An encoder of another package, tried on two images before hours are trained: is it as its spec says?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vpt.backbones import Backbone, BackboneSpec, describe_backbone
from vpt.backbones.families import is_of_others
from vpt.backbones.tokens import Features, KeysValues, Tokens
from vpt.building import load_encoder
from vpt.config.run import BackboneConfig
from vpt.contract import called
from vpt.errors import VptError
from vpt.foreign import blaming, in_brackets, shown
from vpt.sections import is_own

ROUNDING = 1e-3  # of what a block gives, as a part of the largest
IMAGES, PROMPTS = 2, 3
HASHED = 64  # hexadecimal digits of a SHA-256
SEED = 0


def require_sound_encoder(backbone: Backbone, config: BackboneConfig, image_size: int) -> None:
    """Raise VptError where an encoder of another package fails, or is otherwise than it says.

    The encoders of this package are tested for it. Looked at are the shapes that `spec` names, whether prompts reach
    their block, as keys and values too, what is left of the last block where a head reads the first token alone, and
    whether the name gives the same weights when it is loaded again, as whoever uses an artifact does.

    config: by which it was loaded, for images of `image_size` pixels.
    """
    if is_of_others(config.name):
        _require_same_again(backbone, config, image_size)
    if is_own(backbone):
        return
    device = next(backbone.parameters()).device
    with (
        blaming(backbone, doing="a pass of two images"),
        torch.no_grad(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(SEED)
        _require_spec(backbone, torch.randn(IMAGES, backbone.channels, *backbone.spec.image_size, device=device))


def _require_same_again(backbone: Backbone, config: BackboneConfig, image_size: int) -> None:
    name, found = f"backbone {config.name}", backbone.sha256
    if not (isinstance(found, str) and len(found) == HASHED and not {*found} - {*"0123456789abcdef"}):
        raise VptError(
            f"{name}: sha256 is {found!r}, expected that of its weights, vpt.backbones.weights.sha256_of(...)"
        )
    again = load_encoder(config, image_size)
    if again.sha256 != found:
        raise VptError(
            f"{name}: loaded once more, {config.name} has other weights (SHA-256 {again.sha256[:16]}... instead of "
            f"{found[:16]}...), so that no artifact could be used; seed what starts at random (torch.manual_seed)"
        )
    described = _sizeless(describe_backbone(config.name, weights=config.weights, **config.options))
    for key, value in _sizeless(backbone.spec).items():
        if described[key] != value:
            raise VptError(
                f"{name}: {key} of its spec is {value}, and the family's `describe` says {described[key]}; let both "
                "say the same"
            )


def _sizeless(spec: BackboneSpec) -> dict[str, Any]:
    """What is the same for images of every size."""
    return {
        "patch": spec.patch,
        "prefix": spec.prefix,
        "pool": spec.pool,
        "mean": tuple(spec.mean),
        "std": tuple(spec.std),
        "padding": spec.padding,
        "blocks": [(block.width, block.heads, block.attends) for block in spec.blocks],
        "finished": spec.finished.width,
    }


def _require_spec(backbone: Backbone, images: Tensor) -> None:
    spec, name = backbone.spec, called(backbone)
    tokens = _require_tokens(f"{name}: embed gives", backbone.embed(images), spec, 0)
    for i, block in enumerate(spec.blocks):
        said, last = f"{name}: block({i}) gives", i == spec.depth - 1
        left = _require_tokens(said, backbone.block(i, tokens, None), spec, None if last else i + 1)
        if block.attends:
            _require_prompts(backbone, i, tokens, left)
        if last and spec.has_cls:
            first = backbone.block(i, tokens, None, "first")
            if not _alike(first.prefix[:, :1], left.prefix[:, :1]):
                raise VptError(
                    f'{said} another first token where keep is "first"; give the same, and leave out the rest'
                )
        tokens = left
    _require_features(f"{name}: finish gives", backbone.finish(tokens), spec)


def _require_prompts(backbone: Backbone, i: int, tokens: Tokens, left: Tokens) -> None:
    """Raise VptError unless a context acts in block `i`, and its keys and values as well."""
    said = f"{called(backbone)}: block({i})"
    context = torch.randn(PROMPTS, tokens.grid.shape[-1], device=tokens.grid.device)
    prompted = backbone.block(i, tokens, context)
    for part in ("grid", "prefix", "prompts"):
        _require_shape(f"{said} with a context gives as {part}", getattr(prompted, part), getattr(left, part).shape)
    if torch.equal(prompted.grid, left.grid):
        raise VptError(f"{said} gives the same with a context as without; attend to it, beside the tokens")
    projected = backbone.project(i, context)
    if not isinstance(projected, KeysValues):
        raise VptError(f"{called(backbone)}: project({i}) gives {shown(projected)}, expected KeysValues")
    if not _alike(backbone.block(i, tokens, projected).grid, prompted.grid):
        raise VptError(
            f"{said} gives other tokens with the keys and values of a context than with the context itself, so that "
            "inference would answer otherwise than training; see `attention_of` and `project`"
        )


def _require_tokens(said: str, found: Any, spec: BackboneSpec, entered: int | None) -> Tokens:
    """entered: the block that they enter; None where they leave the last."""
    if not isinstance(found, Tokens):
        raise VptError(f"{said} {shown(found)}, expected Tokens (vpt.backbones.Tokens)")
    if entered is not None:
        width, grid = spec.entered(entered)
        _require_shape(f"{said} as grid", found.grid, (IMAGES, *grid, width))
        _require_shape(f"{said} as prefix", found.prefix, (IMAGES, spec.prefix, width))
        _require_shape(f"{said} as prompts", found.prompts, (IMAGES, 0, width))
    return found


def _require_features(said: str, found: Any, spec: BackboneSpec) -> None:
    if not isinstance(found, Features):
        raise VptError(f"{said} {shown(found)}, expected Features (vpt.backbones.Features)")
    width, grid = spec.finished
    _require_shape(f"{said} as grid", found.grid, (IMAGES, width, *grid))
    if spec.pool not in (None, "cls"):
        _require_shape(f"{said} as pooled", found.pooled, (IMAGES, width))


def _require_shape(said: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, Tensor) or found.shape != shape:
        expected = in_brackets(("B", *shape[1:]))
        raise VptError(
            f"{said} {shown(found)} of {IMAGES} images, expected {expected} as its spec says; mend one of both"
        )


def _alike(found: Tensor, other: Tensor) -> bool:
    return found.shape == other.shape and bool((found - other).abs().max() <= ROUNDING * found.abs().max())

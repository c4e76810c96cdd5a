"""Encoders of others, tried before the first step: what their spec says, and that they load again alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import VIT, Stages
from timm.models.vision_transformer import VisionTransformer
from tiny_run import ONE_STEP
from torch import Tensor

import vpt
from vpt.backbones import Backbone, Family
from vpt.backbones.families import _registered
from vpt.backbones.tokens import Context, Features, Keep, Tokens
from vpt.backbones.vit import VitBackbone
from vpt.backbones.weights import sha256_of
from vpt.config.run import BackboneConfig
from vpt.engine.run import train
from vpt.engine.sound_encoder import require_sound_encoder
from vpt.errors import VptError


class Mine(VitBackbone):
    """As all others, until a test changes what a function gives."""

    embedded: Callable[[Tokens], Any] = staticmethod(lambda tokens: tokens)
    left: Callable[[Tokens, Any, str], Any] = staticmethod(lambda tokens, context, keep: tokens)
    finished: Callable[[Features], Any] = staticmethod(lambda features: features)
    asked: Callable[[Context | None], Any] = staticmethod(lambda context: context)

    def embed(self, images: Tensor) -> Any:
        return self.embedded(super().embed(images))

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Any:
        return self.left(super().block(i, tokens, self.asked(context), keep), context, keep)

    def finish(self, tokens: Tokens) -> Any:
        return self.finished(super().finish(tokens))


def make(kind: type[VitBackbone] = Mine, seed: int | None = 0, **more: Any) -> VitBackbone:
    if seed is not None:
        torch.manual_seed(seed)
    vit = VisionTransformer(**VIT | {"img_size": 32, "depth": 2})
    half = (0.5, 0.5, 0.5)
    return kind(vit, **{"name": "mine", "mean": half, "std": half, "sha256": sha256_of(vit)} | more).eval()


def try_out(backbone: Backbone) -> None:
    require_sound_encoder(backbone, BackboneConfig(name="vit_micro"), 32)


@pytest.mark.parametrize(
    ("function", "made", "said"),
    [
        (
            "embedded",
            lambda tokens: tokens.grid,
            r"^backbone .*\.Mine: embed gives a tensor \(2, 4, 4, 32\), expected Tok",
        ),
        (
            "embedded",
            lambda tokens: replace(tokens, grid=tokens.grid.permute(0, 3, 1, 2)),
            r"embed gives as grid a tensor \(2, 32, 4, 4\) of 2 images, expected \(B, 4, 4, 32\) as its spec says",
        ),
        (
            "embedded",
            lambda tokens: replace(tokens, prefix=tokens.prefix[:, :0]),
            r"embed gives as prefix a tensor \(2, 0, 32\) of 2 images, expected \(B, 1, 32\)",
        ),
        (
            "left",
            lambda tokens, context, keep: tokens.grid,
            r"block\(0\) gives a tensor \(2, 4, 4, 32\), expected Tokens",
        ),
        (
            "left",
            lambda tokens, context, keep: tokens if context is None else replace(tokens, prompts=tokens.prefix),
            r"block\(0\) with a context gives as prompts a tensor \(2, 1, 32\) of 2 images, expected \(B, 0, 32\)",
        ),
        ("asked", lambda context: None, r"block\(0\) gives the same with a context as without; attend to it, beside"),
        (
            "asked",
            lambda context: context.flip(-1) if isinstance(context, Tensor) else context,
            r"block\(0\) gives other tokens with the keys and values of a context than with the context itself",
        ),
        (
            "left",
            lambda tokens, context, keep: replace(tokens, prefix=-tokens.prefix) if keep == "first" else tokens,
            r'block\(1\) gives another first token where keep is "first"; give the same, and leave out the rest',
        ),
        ("finished", lambda features: features.grid, r"finish gives a tensor \(2, 32, 4, 4\), expected Features"),
        (
            "finished",
            lambda features: replace(features, grid=features.grid[..., :1]),
            r"finish gives as grid a tensor \(2, 32, 4, 1\) of 2 images, expected \(B, 32, 4, 4\)",
        ),
        (
            "finished",
            lambda features: 1 / 0,
            r"Mine: a pass of two images ends in ZeroDivisionError: division by zero \(l",
        ),
    ],
)
def test_what_is_not_as_the_spec_says_is_named(function: str, made: Any, said: str) -> None:
    backbone = make()
    try_out(backbone)
    object.__setattr__(backbone, function, made)
    with pytest.raises(VptError, match=said):
        try_out(backbone)


def test_encoders_with_stages_and_convolutions_are_taken_and_draw_nothing() -> None:
    backbone = Stages()
    drawn = torch.get_rng_state()
    try_out(backbone)
    assert torch.equal(torch.get_rng_state(), drawn)
    backbone.spec = replace(backbone.spec, pool="mean")
    with pytest.raises(VptError, match=r"Stages: finish gives as pooled None of 2 images, expected \(B, 32\)"):
        try_out(backbone)


# --- families ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def family() -> Iterator[Callable[..., None]]:
    """family(load, describe): what the name "mine" loads from now on."""

    def register(load: Any, describe: Any = lambda name, weights: make().spec) -> None:
        _registered.clear()
        vpt.register_backbones(Family("mine", "mine", lambda name: name == "mine", load, describe))

    yield register
    _registered.clear()


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            lambda *_: make(seed=None),
            r"^backbone mine: loaded once more, mine has other weights \(SHA-256 .*; seed what",
        ),
        (
            lambda *_: make(sha256="v1"),
            r"^backbone mine: sha256 is 'v1', expected that of its weights, vpt\.backbones\.we",
        ),
        (
            lambda *_: make(mean=(0.0, 0.0, 0.0)),
            r"^backbone mine: mean of its spec is \(0\.0, 0\.0, 0\.0\), and the famil",
        ),
        (
            lambda *_: VisionTransformer(**VIT),
            r"^backbone mine: its family loads a VisionTransformer, expected an instance of a class that derives",
        ),
        (
            lambda name: make(),
            r"<lambda>: load mine ends in TypeError: .* takes 1 positional argument but 3 were given",
        ),
    ],
)
def test_an_encoder_that_no_artifact_could_find_again_is_refused_before_the_first_step(
    family: Any, tiny_data: Path, tmp_path: Path, load: Any, said: str
) -> None:
    family(load)
    with pytest.raises(VptError, match=said):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"backbone.name": "mine", "head.levels": 1})
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.parametrize("family", [Family, "mine", lambda: None])
def test_what_is_no_family_is_refused(family: Any) -> None:
    with pytest.raises(
        VptError, match=r"^backbones: (the class Family|a str|a function), expected a vpt\.backbones\.Fam"
    ):
        vpt.register_backbones(family)

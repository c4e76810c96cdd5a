"""The idea in one function, and the module that trains it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone, Features, Tokens
from vpt.heads.base import Head
from vpt.prompts.base import Prompts


def encode(backbone: Backbone, prompts: Prompts, images: Tensor, levels: Collection[int] = ()) -> Features:
    """Normalised images (B, 3, H, W) -> features, with the grids after the blocks in `levels`.

    Autograd records nothing below the first prompted block, since nothing there needs a gradient; above it gradients
    cross the frozen blocks, so this must not run under `no_grad` in training.
    """
    return encode_from(0, backbone, prompts, backbone.embed(images), levels)


def encode_from(
    first: int,
    backbone: Backbone,
    prompts: Prompts,
    tokens: Tokens,
    levels: Collection[int] = (),
    below: Sequence[Tensor] = (),
) -> Features:
    """The rest of `encode`: tokens as they enter block `first` -> features.

    below: the grids (B, C, H, W) after those of `levels` that lie below `first`, as `frozen_prefix` gives them.
    """
    kept = list(below)
    for i in range(first, backbone.spec.depth):
        tokens, context = prompts.enter(i, tokens)
        tokens = backbone.block(i, tokens, context)
        if i in levels:
            kept.append(tokens.grid.permute(0, 3, 1, 2))
    features = backbone.finish(tokens)
    return Features(features.grid, features.prefix, tuple(kept))


@torch.no_grad()
def frozen_prefix(
    first: int, backbone: Backbone, images: Tensor, levels: Collection[int] = ()
) -> tuple[Tokens, tuple[Tensor, ...]]:
    """Normalised images (B, 3, H, W) -> tokens as they enter block `first` of the encoder without prompts.

    With the grids (B, C, H, W) after those of `levels` that lie below it.
    """
    tokens, below = backbone.embed(images), []
    for i in range(first):
        tokens = backbone.block(i, tokens, None)
        if i in levels:
            below.append(tokens.grid.permute(0, 3, 1, 2))
    return tokens, tuple(below)


class PromptedModel(nn.Module):
    """A frozen backbone, trained prompts, a trained head: images (B, 3, H, W) -> the head's output.

    What trains is what has `requires_grad`; the backbone is frozen here and stays in eval mode whatever `train` says.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts, head: Head):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.prompts = prompts
        self.head = head
        self.train()

    def forward(self, images: Tensor, hints: Tensor | None = None) -> Tensor:
        """`hints` (B, N, 3): see `Head.forward`; only for a head that takes them."""
        if hints is not None and not self.head.takes_hints:
            raise ValueError(f"{type(self.head).__name__} takes no boxes or points")
        features = encode(self.backbone, self.prompts, images, self.head.levels)
        return self.head(features, images) if hints is None else self.head(features, images, hints)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def first_trained_block(self) -> int:
        """How many of the encoder's blocks, from the first on, run as in the frozen encoder whatever is learned.

        0 as soon as anything of the backbone trains, since tuning may have reached any block.
        """
        if any(parameter.requires_grad for parameter in self.backbone.parameters()):
            return 0
        return self.prompts.first(self.backbone.spec.depth)

    def trained(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of everything that trains, in the module's order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_state(self) -> dict[str, Tensor]:
        """What training leaves behind: trained parameters, and the buffers of prompts and head."""
        state = {name: p.detach() for name, p in self.trained().items()}
        state |= {name: b for name, b in self.named_buffers() if not name.startswith("backbone.")}
        return state

    def count_parameters(self) -> dict[str, int]:
        """Trained parameters by part, their sum, and the frozen rest."""
        parts = {
            name: sum(p.numel() for p in getattr(self, name).parameters() if p.requires_grad)
            for name in ("prompts", "head", "backbone")
        }
        total = sum(parts.values())
        return parts | {"trained": total, "frozen": sum(p.numel() for p in self.parameters()) - total}

"""The idea in one function, and the module that trains it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vpt.backbones.base import Backbone, BackboneSpec, Context, Features, Keep, Tokens
from vpt.heads.base import Head
from vpt.prompts.base import Prompts

PER_TOKEN = 16  # numbers that inference holds at once, in widths of the encoder
PER_PIXEL = 150  # and of the mask head, with which a decoder of SAM is smaller
PER_CLASS = 3  # logits: as they come, put together from tiles, and resized


def encode(
    backbone: Backbone,
    prompts: Prompts,
    images: Tensor,
    levels: Collection[int] = (),
    keep: Keep = "all",
    checkpointing: bool = False,
) -> Features:
    """Normalised images (B, 3, H, W) -> features, with the grids after the blocks in `levels`.

    Autograd records nothing below the first prompted block, since nothing there needs a gradient; above it gradients
    cross the frozen blocks, so this must not run under `no_grad` in training. For `keep` and `checkpointing` see
    `encode_from`.
    """
    return encode_from(0, backbone, prompts, backbone.embed(images), levels, (), keep, checkpointing)


def encode_from(
    first: int,
    backbone: Backbone,
    prompts: Prompts,
    tokens: Tokens,
    levels: Collection[int] = (),
    below: Sequence[Tensor] = (),
    keep: Keep = "all",
    checkpointing: bool = False,
) -> Features:
    """The rest of `encode`: tokens as they enter block `first` -> features.

    below: the grids (B, C, H, W) after those of `levels` that lie below `first`, as `frozen_prefix` gives them;
    keep: "first" leaves out of the last block what only serves other tokens than the first, which alone are finished;
    checkpointing: what is inside a block is not kept for the backward pass but computed again there.
    """
    kept = list(below)
    for i in range(first, backbone.spec.depth):
        tokens, context = prompts.enter(i, tokens)
        rows = keep if i == backbone.spec.depth - 1 and i not in levels else "all"
        if checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(backbone.block, i, tokens, context, rows, use_reentrant=False)
        else:
            tokens = backbone.block(i, tokens, context, rows)
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


class FrozenPrompts(Prompts):
    """Prompts that are keys and values already, for inference with a model whose weights no longer change.

    They are no buffers: not part of what is saved, and not moved to another device.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts):
        super().__init__()
        width, (height, columns) = backbone.spec.width, backbone.spec.grid
        some = next(backbone.parameters()).new_empty(1, height, columns, width)
        nothing = Tokens(some, some[:, 0, :0], some[:, 0, :0])
        contexts = [prompts.enter(i, nothing)[1] for i in range(backbone.spec.depth)]
        self.contexts = [backbone.fix(i, c) if isinstance(c, Tensor) else c for i, c in enumerate(contexts)]

    def enter(self, i: int, tokens: Tokens) -> tuple[Tokens, Context | None]:
        return tokens, self.contexts[i]


class PromptedModel(nn.Module):
    """A frozen backbone, trained prompts, a trained head: images (B, 3, H, W) -> the head's output.

    What trains is what has `requires_grad`; the backbone is frozen here and stays in eval mode whatever `train` says.

    Set `checkpointing` to trade time for memory in training, see `encode_from`.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts, head: Head):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.prompts = prompts
        self.head = head
        self.checkpointing = False
        self._frozen: FrozenPrompts | None = None
        self._encode_from = encode_from
        self.train()

    def features(self, images: Tensor) -> Features:
        """Of normalised images (B, 3, H, W): all that the head reads."""
        return self.features_from(0, self.backbone.embed(images))

    def features_from(self, first: int, tokens: Tokens, below: Sequence[Tensor] = ()) -> Features:
        """The same from tokens as they enter block `first`, and the grids below it that the head reads."""
        prompts = self._frozen or self.prompts
        head, backbone = self.head, self.backbone
        levels, keep, lean = head.levels, head.reads, self.checkpointing
        return self._encode_from(first, backbone, prompts, tokens, levels, below, keep, lean)

    def forward(self, images: Tensor, hints: Tensor | None = None) -> Tensor:
        """`hints` (B, N, 3): see `Head.forward`; only for a head that takes them."""
        if hints is not None and not self.head.takes_hints:
            raise ValueError(f"{type(self.head).__name__} takes no boxes or points")
        features = self.features(images)
        return self.head(features, images) if hints is None else self.head(features, images, hints)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        if mode:
            self._frozen = None
        return self

    @torch.no_grad()
    def freeze_prompts(self) -> Self:
        """Make ready for inference: what the blocks make of the prompts is computed here, once; `train` drops it.

        To be called where the model will run, on its device and under its autocast. Prompts that depend on the image,
        or that travel with the tokens, stay as they are.
        """
        self.eval()
        self._frozen = FrozenPrompts(self.backbone, self.prompts) if self.prompts.fixed else None
        return self

    def compile_blocks(self) -> Self:
        """Run the blocks through `torch.compile`; the first batch of every shape then takes a minute or so."""
        self._encode_from = torch.compile(encode_from)
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


def numbers_per_image(spec: BackboneSpec, size: int, classes: int = 0) -> int:
    """Numbers that an image (3, size, size) holds at once without a backward pass; classes: of a mask, 0 for none."""
    tokens = size**2 // (spec.patch[0] * spec.patch[1])
    return PER_TOKEN * tokens * spec.width + ((PER_PIXEL + PER_CLASS * classes) * size**2 if classes else 0)

"""Where a class is read from: the attention that class prompts give the patches.

It is read off any adapter as in `vpt.explaining`: what a prompt gathers is linear in the values, so a unit vector that
is added to a patch's value changes it by the weight that the prompt gives that patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.explaining import watched
from vpt.model import UNKNOWN, PromptedModel


@torch.no_grad()
def class_attention(model: PromptedModel, images: Tensor) -> Tensor:
    """Normalised images (B, 3, H, W) -> softmax weights (B, prompts, heads, rows, columns) of the last block.

    Of every travelling prompt, what it gives each patch there; the rest it gives the CLS token and the prompts.
    """
    backbone, prompts = model.backbone, model.prompts
    state, tokens, last = prompts.begin(images, UNKNOWN), backbone.embed(images), backbone.spec.depth - 1
    for i in range(last):
        tokens, context = prompts.enter(i, tokens, state)
        tokens = backbone.block(i, tokens, context)
    tokens, context = prompts.enter(last, tokens, state)
    assert context is None
    return weights_on_patches(backbone, last, tokens).transpose(1, 2)


def weights_on_patches(backbone: Backbone, i: int, tokens: Tokens) -> Tensor:
    """What travelling prompts give each patch in block `i`: (B, heads, P, rows, columns)."""
    batch, rows, columns = tokens.grid.shape[:3]
    heads, prefix, prompts = backbone.spec.blocks[i].heads, tokens.prefix.shape[1], tokens.prompts.shape[1]
    depth, patches = backbone.spec.blocks[i].width // heads, rows * columns
    with _values_moved(backbone) as moved, watched(backbone) as seen:
        before = _gathered(backbone, i, tokens, seen)
        found = []
        for first in range(0, patches, depth):
            some = min(depth, patches - first)
            change = before.new_zeros(prefix + prompts + patches, heads, depth)
            place = torch.arange(some)
            change[prefix + prompts + first + place, :, place] = 1
            moved.append(change.flatten(1))
            after = _gathered(backbone, i, tokens, seen)
            moved.clear()
            found.append((after - before)[:, prefix : prefix + prompts].unflatten(-1, (heads, depth))[..., :some])
    weights = torch.cat(found, -1).float().clamp(0, 1)  # (B, P, heads, patches)
    return weights.transpose(1, 2).reshape(batch, heads, prompts, rows, columns)


def _gathered(backbone: Backbone, i: int, tokens: Tokens, seen: list[Tensor]) -> Tensor:
    """What block `i` gathers by attention, (B, N, heads * d)."""
    seen.clear()
    backbone.block(i, tokens, None)
    (gathered,) = seen
    return gathered


class _Moved(nn.Module):
    """A projection to which something is added: (N, width of the values), where there is anything."""

    def __init__(self, projection: nn.Module, moved: list[Tensor]):
        super().__init__()
        self.projection, self.moved = projection, moved

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.projection(tokens)
        for change in self.moved:
            width = change.shape[-1]
            projected = torch.cat([projected[..., :-width], projected[..., -width:] + change], -1)
        return projected


@contextmanager
def _values_moved(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """What is put into the list is added to the values of every block that runs."""
    moved: list[Tensor] = []
    own = {
        (parent, name): projection
        for path, parent in backbone.named_modules()
        if path.endswith("attn")
        for name in ("qkv", "v_proj")
        if isinstance(projection := getattr(parent, name, None), nn.Module)
    }
    try:
        for (parent, name), projection in own.items():
            setattr(parent, name, _Moved(projection, moved))
        yield moved
    finally:
        for (parent, name), projection in own.items():
            setattr(parent, name, projection)

"""Where a class is read from: the attention that class prompts give the patches, and what each patch adds by it.

Both are read off any adapter through the values, as in `vpt.explaining`: what a prompt gathers is linear in them, so a
unit vector that is added to a patch's value changes it by the weight that the prompt gives that patch; and the slope by
a factor on that value is what the patch adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.explaining import seen_together, unreadable, watched
from vpt.model import UNKNOWN, PromptedModel

Change = Callable[[Tensor], Tensor]
"""Values (B, N, heads * d) -> others."""


@torch.no_grad()
def class_attention(model: PromptedModel, images: Tensor) -> Tensor:
    """Normalised images (B, 3, H, W) -> softmax weights (B, prompts, heads, rows, columns) of the last block.

    Of every travelling prompt, what it gives each patch there; the rest it gives the CLS token and the prompts.
    """
    last = model.backbone.spec.depth - 1
    return weights_on_patches(model.backbone, last, entering_last(model, images)).transpose(1, 2)


def class_evidence(model: PromptedModel, images: Tensor, score: Change) -> Tensor:
    """Normalised images (B, 3, H, W) -> (B, heads, rows, columns), what each patch adds to a score by the last block.

    It is the slope of the score (of the logits, (B, K) -> (B,)) by a factor on what the patch is gathered as there:
    its attention times its value times what that does. Below 0 it speaks against. Right to first order.

    Raises:
        VptError: an encoder whose heads have no values of their own, or several attentions in a block.
    """
    backbone = model.backbone
    last, tokens = backbone.spec.depth - 1, entering_last(model, images)
    batch, rows, columns = tokens.grid.shape[:3]
    heads, others = backbone.spec.blocks[last].heads, tokens.prefix.shape[1] + tokens.prompts.shape[1]
    gathered = _gathered(backbone, last, tokens, lambda values: values).shape[-1]
    factors = tokens.grid.new_ones(batch, others + rows * columns, heads, 1, requires_grad=True)

    def scaled(values: Tensor) -> Tensor:
        if values.shape[-1] != gathered:  # heads that share values, or several attentions
            raise unreadable(backbone, last)
        return (values.unflatten(-1, (heads, -1)) * factors).flatten(-2)

    with torch.enable_grad(), _values_changed(backbone, scaled):
        logits = model.head(backbone.finish(backbone.block(last, tokens, None)), images)
        (slopes,) = torch.autograd.grad(score(logits).sum(), factors)
    return slopes[:, others:, :, 0].mT.unflatten(-1, (rows, columns))


@torch.no_grad()
def entering_last(model: PromptedModel, images: Tensor) -> Tokens:
    """The tokens that enter the last block, travelling prompts among them."""
    backbone, prompts, last = model.backbone, model.prompts, model.backbone.spec.depth - 1
    state, tokens = prompts.begin(images, UNKNOWN), backbone.embed(images)
    for i in range(last):
        tokens, context = prompts.enter(i, tokens, state)
        tokens = backbone.block(i, tokens, context)
    tokens, context = prompts.enter(last, tokens, state)
    assert context is None
    return tokens


def weights_on_patches(backbone: Backbone, i: int, tokens: Tokens) -> Tensor:
    """What travelling prompts give each patch in block `i`: (B, heads, P, rows, columns)."""
    batch, rows, columns = tokens.grid.shape[:3]
    heads, prefix, prompts = backbone.spec.blocks[i].heads, tokens.prefix.shape[1], tokens.prompts.shape[1]
    before, patches = _gathered(backbone, i, tokens, lambda values: values), rows * columns
    depth, found = before.shape[-1] // heads, []
    for first in range(0, patches, depth):
        some = min(depth, patches - first)
        unit = before.new_zeros(before.shape[1], 1, depth)  # the same for every head, however many have values
        unit[range(prefix + prompts + first, prefix + prompts + first + some), :, range(some)] = 1

        def moved(values: Tensor, unit: Tensor = unit) -> Tensor:
            return (values.unflatten(-1, (-1, depth)) + unit).flatten(-2)

        change = _gathered(backbone, i, tokens, moved) - before
        found.append(change[:, prefix : prefix + prompts].unflatten(-1, (heads, depth))[..., :some])
    weights = torch.cat(found, -1).float().clamp(0, 1)  # (B, P, heads, patches)
    return weights.transpose(1, 2).reshape(batch, heads, prompts, rows, columns)


def _gathered(backbone: Backbone, i: int, tokens: Tokens, change: Change) -> Tensor:
    """What block `i` gathers by attention where its values are changed, (B, N, heads * d)."""
    with _values_changed(backbone, change), watched(backbone) as seen:
        backbone.block(i, tokens, None)
    return seen_together(backbone, i, seen)


class _Changed(nn.Module):
    """A projection to [queries, keys,] values, whose values are changed."""

    def __init__(self, projection: nn.Module, change: Change, parts: int):
        super().__init__()
        self.projection, self.change, self.parts = projection, change, parts

    def forward(self, tokens: Tensor) -> Tensor:
        *others, values = self.projection(tokens).chunk(self.parts, -1)
        return torch.cat([*others, self.change(values)], -1)


@contextmanager
def _values_changed(backbone: nn.Module, change: Change) -> Iterator[None]:
    """In every block that runs."""
    attentions = [module for path, module in backbone.named_modules() if path.endswith("attn")]
    own = [
        (attention, name, projection, parts)
        for attention in attentions
        for name, parts in (("qkv", 3), ("v_proj", 1))
        if isinstance(projection := getattr(attention, name, None), nn.Module)
    ]
    try:
        for attention, name, projection, parts in own:
            setattr(attention, name, _Changed(projection, change, parts))
        yield
    finally:
        for attention, name, projection, _ in own:
            setattr(attention, name, projection)

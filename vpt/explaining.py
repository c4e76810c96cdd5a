"""What a prompt does: which patches attend to it, what changes where it is left out, which prompts are alike.

Attention is read off any adapter, without knowing how it attends: what a patch gathers is linear in the values, so
prompts whose values differ by a unit vector change it by their softmax weights. To the patches of a block, prompts that
travel (VPT-shallow) are what the same tokens beside them would be: keys and values without a place. So both are read
alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.backbones.base import Backbone, Context, KeysValues, SeparateContext, Tokens
from vpt.errors import VptError
from vpt.model import UNKNOWN, Below, PromptedModel, encode, informed
from vpt.progress import Tick, silent
from vpt.prompts import Prompts

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the patches, that are hidden
DRAWS = 5  # of random patches to compare with
Score = Callable[[Tensor], float]
"""Logits (1, K, ...) -> the number that is watched."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of one block, on one image.

    attention: (H, W) the share of its attention that each patch gives it, mean of the heads; share: its mean over the
    image; influence: how much the score falls where it is left out (below 0: rises), of one that travels from this
    block on.
    """

    block: int
    number: int
    attention: Tensor
    share: float
    influence: float | None = None


class Reading(NamedTuple):
    """Of a block: softmax weights of patches on its prompts, (B, heads, rows, columns, P), and the cosine of every two
    of its prompts, (P, P), of the first image where they depend on it; None where they are keys and values already.
    """

    weights: Tensor
    cosines: Tensor | None


@torch.no_grad()
def read_prompts(model: PromptedModel, images: Tensor) -> dict[int, Reading]:
    """Normalised images (B, 3, H, W) -> of every block with prompts, by its number, what is said of them.

    Raises:
        VptError: prompts that no block attends to as it does to its tokens, see `require_readable`.
    """
    found: dict[int, Reading] = {}
    for i, tokens, context, beside in beside_tokens(model, images):
        cosines = _cosines(context) if isinstance(context, Tensor) else None
        found[i] = Reading(_weights(model.backbone, i, tokens, beside), cosines)
    return found


@torch.no_grad()
def beside_tokens(model: PromptedModel, images: Tensor) -> Iterator[tuple[int, Tokens, Context, KeysValues]]:
    """Of normalised images (B, 3, H, W): the number of every block with prompts, the tokens that enter it, the prompts
    beside them, and their keys and values. Prompts that travel are told as prompts beside the other tokens.

    Raises:
        VptError: prompts that no block attends to as it does to its tokens, see `require_readable`.
    """
    backbone, prompts = model.backbone, model.prompts
    tokens = backbone.embed(images)
    state = prompts.begin(images, informed(UNKNOWN, prompts, backbone, Below(0, tokens)))
    seen = False
    for i in range(backbone.spec.depth):
        tokens, context = prompts.enter(i, tokens, state)
        others, read = _apart(tokens, context)
        if read is not None:
            require_readable(read, others, prompts)
            if backbone.spec.blocks[i].attends:
                beside = backbone.project(i, read) if isinstance(read, Tensor) else read
                assert isinstance(beside, KeysValues)
                seen = True
                yield i, others, read, beside
        tokens = backbone.block(i, tokens, context)
    if not seen:
        require_readable(None, tokens, prompts)


def _apart(tokens: Tokens, context: Context | None) -> tuple[Tokens, Context | None]:
    """Tokens without those that travel, and these as the context (B, P, C) that they are to the patches of a block.

    As they come where none travel, or where there is a context besides.
    """
    if context is not None or not tokens.prompts.shape[1]:
        return tokens, context
    return replace(tokens, prompts=tokens.prompts[:, :0]), tokens.prompts


def _cosines(context: Tensor) -> Tensor:
    """Prompts (P, C) or (B, P, C) -> (P, P)."""
    rows = F.normalize(context.reshape(-1, *context.shape[-2:])[0], dim=-1)
    return rows @ rows.T


@torch.no_grad()
def influence(
    model: PromptedModel, image: Tensor, score: Score, counts: dict[int, int], progress: Tick = silent
) -> dict[tuple[int, int], float]:
    """(block, number) of each prompt -> how much less the score is without it, of one normalised image (1, 3, H, W).

    counts: block -> its prompts.
    """
    places = [(block, number) for block, count in counts.items() for number in range(count)]
    whole, found = score(answer(model, image, model.prompts)), {}
    for done, (block, number) in enumerate(places, start=1):
        found[block, number] = whole - score(answer(model, image, Without(model.prompts, block, number)))
        progress(done, len(places), f"block {block}, prompt {number}")
    return found


def answer(model: PromptedModel, image: Tensor, prompts: Prompts) -> Tensor:
    """The logits of a normalised image with other prompts than the model's."""
    head = model.head
    return head(encode(model.backbone, prompts, image, levels=head.levels), image)


@dataclass
class _Passing:
    """The state of a pass: that of the prompts, and whether the one that is left out would travel on."""

    own: Any
    travels: bool = False


class Without(Prompts):
    """A model's prompts but for one of a block; one that travels is left out from that block on."""

    def __init__(self, prompts: Prompts, block: int, number: int):
        super().__init__()
        self._prompts = (prompts,)  # in a tuple, so that they are no part of this
        self.block, self.number = block, number
        self.needs_query, self.needs_mean_query = prompts.needs_query, prompts.needs_mean_query

    def begin(self, images: Tensor | None, info: Any) -> _Passing:
        return _Passing(self._prompts[0].begin(images, info))

    def enter(self, i: int, tokens: Tokens, state: _Passing) -> tuple[Tokens, Context | None]:
        if state.travels:  # the method counts on all that travel
            tokens = replace(tokens, prompts=_with_row(tokens.prompts, self.number))
        tokens, context = self._prompts[0].enter(i, tokens, state.own)
        if state.travels or (i == self.block and tokens.prompts.shape[1]):
            state.travels = True
            return replace(tokens, prompts=_without_row(tokens.prompts, self.number)), context
        if i != self.block or not isinstance(context, Tensor | KeysValues):
            return tokens, context
        if isinstance(context, Tensor):
            return tokens, _without_row(context, self.number) if context.shape[-2] > 1 else None
        keys, values = (_without_row(part, self.number) for part in (context.keys, context.values))
        return tokens, KeysValues(keys, values) if keys.shape[-2] else None


def _without_row(rows: Tensor, number: int) -> Tensor:
    """(..., P, C) -> (..., P - 1, C)."""
    return torch.cat([rows[..., :number, :], rows[..., number + 1 :, :]], -2)


def _with_row(rows: Tensor, number: int) -> Tensor:
    """(..., P - 1, C) -> (..., P, C), with zeros in the place of that number."""
    zeros = rows.new_zeros(*rows.shape[:-2], 1, rows.shape[-1])
    return torch.cat([rows[..., :number, :], zeros, rows[..., number:, :]], -2)


def require_readable(context: Context | None, tokens: Tokens, prompts: Prompts) -> None:
    """Raise VptError unless a block attends to the prompts as to its tokens, under one softmax."""
    if context is None and type(prompts) is Prompts:
        raise VptError(
            "there are no prompts to explain (prompts.method is none); give a run that was trained with some"
        )
    if isinstance(context, SeparateContext) or tokens.prompts.shape[1] or context is None:
        raise VptError(
            f"{type(prompts).__name__}: explain reads prompts that blocks attend to as they do to patches, such as "
            "deep, low_rank, fourier, conditioned, shallow, gated and l2p ones"
        )


def _weights(backbone: Backbone, i: int, tokens: Tokens, beside: KeysValues) -> Tensor:
    """(B, heads, rows, columns, P): as many prompts at a time as a head's values have numbers."""
    heads, count, depth = beside.values.shape[-3:]
    batch = len(tokens.grid)
    before, (rows, columns) = _gathered(backbone, i, tokens, beside)
    found = []
    for first in range(0, count, depth):
        some = min(depth, count - first)
        values = beside.values.clone()
        values[..., range(first, first + some), range(some)] += 1
        change = _gathered(backbone, i, tokens, KeysValues(beside.keys, values))[0] - before
        found.append(change.view(batch, -1, heads, depth)[:, -rows * columns :, :, :some])
    weights = torch.cat(found, -1).float().clamp(0, 1)
    return weights.unflatten(1, (rows, columns)).permute(0, 3, 1, 2, 4)


def _gathered(backbone: Backbone, i: int, tokens: Tokens, beside: KeysValues) -> tuple[Tensor, torch.Size]:
    """What enters the last projection of a block's attention, (B, N, heads * d), and the grid of its last tokens.

    The grid is smaller than that of the block where it pools its queries.
    """
    with watched(backbone) as seen:
        backbone.block(i, tokens, beside)
    batch, size = len(tokens.grid), tokens.grid.shape[1:3]
    gathered = seen_together(backbone, i, _whole(seen, size[0]))
    if gathered.ndim == 4:
        size = gathered.shape[1:3]
    if len(gathered) != batch or gathered[..., 0].numel() < batch * size.numel():
        raise unreadable(backbone, i)
    return gathered.reshape(batch, -1, gathered.shape[-1]), size


def _whole(seen: list[Tensor], rows: int) -> list[Tensor]:
    """Grids (B, H, W, C) that an attention computes some images and some rows of windows at a time, put together."""
    if len(seen) < 2 or any(each.ndim != 4 for each in seen):
        return seen
    images: list[Tensor] = []
    bands: list[Tensor] = []
    for each in seen:
        bands.append(each)
        if sum(band.shape[1] for band in bands) == rows:
            images.append(torch.cat(bands, 1))
            bands = []
    return seen if bands else [torch.cat(images)]


def seen_together(backbone: Backbone, i: int, seen: list[Tensor]) -> Tensor:
    """What the attentions of block `i` have gathered (B, ..., heads * d), all their heads in a row.

    Raises:
        VptError: nothing was seen, or what does not belong together.
    """
    if not seen or any(each.shape != seen[0].shape for each in seen):
        raise unreadable(backbone, i)
    return torch.cat(seen, -1)


def unreadable(backbone: Backbone, i: int) -> VptError:
    return VptError(f"block {i} of {backbone.spec.name}: its attention cannot be read off; take another encoder")


@contextmanager
def watched(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """What every attention has gathered, as it comes: the input of its projection, or of what timm puts before that."""
    seen: list[Tensor] = []
    attentions: list[Any] = [module for name, module in backbone.named_modules() if name.endswith("attn")]
    modules = [_after(each) for each in attentions if hasattr(each, "proj")]
    hooks = [module.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class Hidden(NamedTuple):
    """The score as a share of the patches is hidden: those that count most by a map, or random ones."""

    share: float
    most_attending: float
    random: float


def deletion(model: PromptedModel, image: Tensor, score: Score, order: Tensor) -> tuple[Hidden, ...]:
    """What `hidden_in_order` gives for each of `SHARES`, beside the mean of `DRAWS` random orders."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(order.shape, generator=generator).to(image.device) for _ in range(DRAWS)]
    curves = torch.tensor([hidden_in_order(model, image, score, draw, SHARES) for draw in draws], dtype=torch.float64)
    most = hidden_in_order(model, image, score, order, SHARES)
    return tuple(map(Hidden, SHARES, most, curves.mean(0).tolist()))


def _after(attention: Any) -> nn.Module:
    """What is called on what an attention has gathered: timm's have a norm there, others before they begin."""
    found: nn.Module = getattr(attention, "norm", attention.proj) if hasattr(attention, "q_norm") else attention.proj
    return found


@torch.no_grad()
def hidden_in_order(
    model: PromptedModel, image: Tensor, score: Score, order: Tensor, shares: tuple[float, ...]
) -> list[float]:
    """The score of a normalised image (1, 3, H, W) as more of it is hidden under its mean colour (a deletion curve).

    order: (rows, columns), patches with larger values are hidden first; shares: of the patches that are hidden.
    """
    rows, columns = order.shape
    first = order.flatten().argsort(descending=True, stable=True)
    mean, found = image.mean((2, 3), keepdim=True), []
    for share in shares:
        mask = torch.zeros(rows * columns, device=image.device)
        mask[first[: round(share * rows * columns)]] = 1
        over = F.interpolate(mask.view(1, 1, rows, columns), size=image.shape[-2:], mode="nearest")
        found.append(score(answer(model, torch.where(over > 0, mean, image), model.prompts)))
    return found

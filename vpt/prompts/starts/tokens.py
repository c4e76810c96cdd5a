"""Prompts that start from the frozen encoder's own tokens (SPT, VIPAMIN).

    initialise(backbone, prompts, batches, how="kmeans")

or, with numbers of one's own,

    tokens = collect_tokens(backbone, batches, blocks=prompts.starts, placed=False)
    prompts.start_from(kmeans_prompts(tokens, count=10))

SPT: Wang et al., ICML 2024, arXiv:2402.02382. VIPAMIN: see `vpt.prompts.starts.vipamin`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.errors import VptError
from vpt.prompts.base import Init, Prompts
from vpt.prompts.starts.random import uniform_prompts
from vpt.prompts.starts.vipamin import vipamin_prompts
from vpt.words import agreeing, counted


@torch.no_grad()
def initialise(
    backbone: Backbone, prompts: Prompts, images: Iterable[Tensor], how: Init, seed: int = 0, *, limit: int = 5_000
) -> None:
    """Let prompts start from the frozen encoder's tokens on training images, a set of prompts for each block.

    `how`: "uniform" leaves the prompts as they are and reads no image; "tokens" samples tokens and "kmeans" takes
    centres of them (SPT): of the first block the patches before their position embedding, of the others those that
    enter them, as in the authors' code; "vipamin" see `vipamin_prompts`, here from random prompts as VPT's start.

    Images are streamed, and `limit` tokens a block are kept at most, see `collect_tokens`: 5,000 are 15 MB for each
    block of a ViT-B. The seed decides which, and all that follows; no global random state is read or moved.

    Args:
        backbone: frozen, in eval mode; it is only run.
        prompts: changed in place.
        images: batches (B, 3, H, W) of the training set, normalised.

    Raises:
        VptError: prompts that cannot start from tokens; fewer tokens than prompts.
    """
    if how == "uniform":
        return
    if not prompts.starts:
        raise VptError(
            f"prompts: {type(prompts).__name__} cannot start from tokens (init {how}), for they are projected, shared "
            "by all blocks, or no tokens at all; take init uniform, or shallow, deep, gated or cross prompts without "
            "`project` and `shared`"
        )
    blocks, count, spec = prompts.starts, prompts.count, backbone.spec
    tokens = collect_tokens(backbone, images, blocks, limit, seed, placed=how == "vipamin")
    if how == "vipamin":
        _require_enough(tokens, count)
        generator = torch.Generator().manual_seed(seed)
        drawn = [uniform_prompts(1, count, spec.blocks[i].width, spec.first_patch, generator)[0] for i in blocks]
        maps = [backbone.key_value_maps(i) for i in blocks]
        prompts.start_from(vipamin_prompts(tokens, drawn, maps, heads=[spec.blocks[i].heads for i in blocks]))
    else:
        choose = sampled_prompts if how == "tokens" else kmeans_prompts
        prompts.start_from(choose(tokens, count, seed=seed))


@torch.no_grad()
def collect_tokens(
    backbone: Backbone,
    batches: Iterable[Tensor],
    blocks: Collection[int],
    limit: int = 10_000,
    seed: int = 0,
    *,
    placed: bool = True,
) -> list[Tensor]:
    """Patch tokens (N, C) that enter each of the sorted `blocks` without prompts, drawn from all images.

    Images are streamed; no more than `limit` tokens a block are kept, in float32 on the CPU. Each token is kept with
    the same chance, whatever the batches: every one draws a number, and the `limit` smallest stay. The places drawn are
    the same for all blocks with the same grid.

    Args:
        backbone: frozen, in eval mode.
        batches: normalised images (B, 3, H, W) of the training set, moved to the backbone's device.
        blocks: numbers below the backbone's depth, such as the keys of `DeepPrompts.rows`; (0,) for VPT-shallow.
        limit: at least the number of prompts; seed: of the draw; placed: of block 0 with their position embedding, as
            they enter it, or without.
    """
    device = next(backbone.parameters()).device
    draws: dict[tuple[int, int], _Draw] = {}  # a draw of places for each grid
    kept = {block: torch.empty(0, backbone.spec.blocks[block].width) for block in sorted(set(blocks))}
    last = max(kept)
    for images in batches:
        images = images.to(device)
        tokens = backbone.embed(images)
        chosen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for i in range(last + 1):
            if i in kept:
                batch, *grid = tokens.grid.shape[:3]
                size = (grid[0], grid[1])
                if size not in chosen:
                    draw = draws.setdefault(size, _Draw(limit, seed))
                    chosen[size] = draw.choose(batch * grid[0] * grid[1])
                stay, come = chosen[size]
                patches = tokens.grid if placed or i > 0 else backbone.patches(images)
                added = patches.flatten(0, 2)[come.to(device)].float().cpu()
                kept[i] = torch.cat([kept[i][stay], added])
            if i < last:
                tokens = backbone.block(i, tokens, None)
    return list(kept.values())


class _Draw:
    """A draw of `limit` out of a stream whose length nobody knows, with the same chance for all."""

    def __init__(self, limit: int, seed: int):
        self.limit = limit
        self.generator = torch.Generator().manual_seed(seed)
        self.numbers = torch.empty(0, dtype=torch.float64)

    def choose(self, fresh: int) -> tuple[Tensor, Tensor]:
        """`fresh` more come: which of those kept so far stay, and which of the fresh ones join them."""
        old = len(self.numbers)
        drawn = torch.rand(fresh, generator=self.generator, dtype=torch.float64)
        numbers = torch.cat([self.numbers, drawn])
        chosen = numbers.topk(min(self.limit, len(numbers)), largest=False).indices.sort().values
        self.numbers = numbers[chosen]
        return chosen[chosen < old], chosen[chosen >= old] - old


def sampled_prompts(tokens: Sequence[Tensor], count: int, seed: int = 0) -> list[Tensor]:
    """`count` of the tokens (N, C) of each row, drawn without repetition -> (count, C) for each."""
    _require_enough(tokens, count)
    generator = torch.Generator().manual_seed(seed)
    return [row[torch.randperm(len(row), generator=generator)[:count]] for row in tokens]


def kmeans_prompts(tokens: Sequence[Tensor], count: int, steps: int = 10, seed: int = 0) -> list[Tensor]:
    """`count` centres of the tokens (N, C) of each row -> (count, C) for each.

    Lloyd's algorithm for `steps` rounds from `sampled_prompts`; a centre that loses all its tokens stays where it is.
    """
    starts = sampled_prompts(tokens, count, seed)
    return [_lloyd(row, start, steps) for row, start in zip(tokens, starts, strict=True)]


def _lloyd(tokens: Tensor, centres: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        nearest = torch.cdist(tokens, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, tokens)
        sizes = nearest.bincount(minlength=len(centres)).unsqueeze(1)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def _require_enough(tokens: Sequence[Tensor], count: int) -> None:
    least = min(len(row) for row in tokens)
    if least < count:
        raise VptError(
            f"prompts: {counted(least, 'token')} {agreeing(least, 'were')} collected for {counted(count, 'prompt')}; "
            "give more images, or a higher limit"
        )

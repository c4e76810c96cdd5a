"""VIPAMIN (Park and Chung, NeurIPS 2025, arXiv:2510.16446): prompts that start near tokens, and partly outside them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = tuple[Tensor, Tensor]  # (C, C) each: `Backbone.key_value_maps`


@torch.no_grad()
def vipamin_prompts(
    tokens: Sequence[Tensor],
    drawn: Sequence[Tensor],
    maps: Sequence[Maps],
    *,
    heads: Sequence[int] | None = None,
    nearest: int = 10,
    share: float = 0.5,
) -> list[Tensor]:
    """(1 - share) * mean of the `nearest` tokens + share * what the tokens' values do not span -> (count, C) each.

        m = mean of the k tokens x with the largest cos(key(p), key(x)),    key(x) = mean over heads h of (x W_K)_h
        o = the part of p whose value o W_V is orthogonal to all tokens' values x W_V
        p <- (1 - lambda) m + lambda o

    Keys are averaged over the heads before they are compared, as in the authors' code. The paper tunes k = `nearest`
    and lambda = `share` for every task. It takes as tokens the average image's, place by place, with keys as the block
    makes them, and the span of their attention's output; here tokens are drawn from all images, keys lack their biases
    (see `Backbone.key_value_maps`), and attention's output is a mixture of the values that are spanned. Many tokens
    span everything: see `orthogonal_part`.

    o is no longer than p. Where tokens are a hundred times as long as random prompts, as in later blocks of many
    encoders, and a norm follows, it takes a share near 1 for o to matter.

    Args:
        tokens: (N, C) for each prompted block; all are taken where N is below `nearest`.
        drawn: (count, C) random prompts p for each; maps: W_K and W_V of each row's block; heads: how many each block
            has; None for one.
    """
    rows = zip(tokens, drawn, maps, heads or repeat(1, len(tokens)), strict=True)
    return [_row(*row, nearest, share) for row in rows]


def _row(tokens: Tensor, drawn: Tensor, maps: Maps, heads: int, nearest: int, share: float) -> Tensor:
    keys, values = (weight.to(tokens) for weight in maps)
    ours, theirs = (F.normalize((x @ keys).unflatten(-1, (heads, -1)).mean(-2), dim=-1) for x in (drawn, tokens))
    alike = ours @ theirs.T  # (count, N)
    chosen = alike.topk(min(nearest, len(tokens)), dim=-1).indices
    return (1 - share) * tokens[chosen].mean(1) + share * orthogonal_part(drawn, tokens, values)


def orthogonal_part(drawn: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """The part of prompts (count, C) whose values are orthogonal to the values of tokens (N, C); values: W_V (C, C).

    Of the values' span the leading directions count, C / 2 at most, so that something is always left. They are all
    that there are where N is below C / 2.

    The paper projects the prompt's value and goes back by the pseudoinverse of W_V; here the prompt itself is projected
    onto the prompts of such values. They are the same set, and no small singular value of W_V blows the result up.
    """
    valued = tokens.double() @ values.double()
    energies, directions = torch.linalg.eigh(valued.T @ valued)  # ascending
    leading = energies > 1e-12 * energies[-1]
    leading[: len(energies) - len(energies) // 2] = False
    spanned = directions[:, leading]
    basis = _basis(values.double() @ spanned)  # of the prompts that have values within the span
    prompts = drawn.double()
    return (prompts - (prompts @ basis) @ basis.T).to(drawn)


def _basis(columns: Tensor) -> Tensor:
    """(C, n) -> orthonormal columns that span the same space, (C, rank)."""
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-12 * sizes.amax()] if sizes.numel() else left

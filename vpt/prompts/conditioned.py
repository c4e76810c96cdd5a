"""Input-conditioned prompts (VAPT: Le et al., ICLR 2026, arXiv:2501.18936): each image gets prompts of its own."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.prompts.base import (
    MOST,
    Blocks,
    BlocksSetting,
    Prompts,
    PromptSettings,
    choose_blocks,
    compared,
    one_width,
    require_grid,
    require_positive,
)
from vpt.prompts.starts.random import uniform_prompts
from vpt.sections import LARGEST_WIDTH


class ConditionedConfig(PromptSettings):
    method: Literal["conditioned"] = "conditioned"
    """Prompts that a block's own input decides (VAPT)."""
    count: int = Field(10, ge=1, le=MOST)
    """Prompts per block."""
    blocks: BlocksSetting = "all"
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    hidden: int = Field(16, ge=1, le=LARGEST_WIDTH)
    """Width of the bottleneck that all blocks share."""
    kernel: int = Field(3, ge=1)
    """Side of the averaging kernel, in patches; the grid's shorter side at most."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability, of hidden units and of whole channels, in training."""

    compared = (compared("conditioned", "input-conditioned (VAPT), 10", count=10),)

    def build(self, spec: BackboneSpec) -> ConditionedPrompts:
        return ConditionedPrompts(spec, **self.arguments())


class ConditionedPrompts(Prompts):
    """Prompts (B, count, C) that a block's own input decides, attended to as keys and values.

        G = A_i . drop(K_i * LayerNorm_i(X))    what each prompt gathers from the image, (B, count, C)
        P = T + G + W_2 drop(relu(W_1 G))

    X: (B, H, W, C), the patches that enter block i. K_i: (k, k), one kernel for all channels (a depthwise convolution
    of equal kernels, without padding). A_i: (count, H', W') with H' = H - k + 1 and W' = W - k + 1, a weight for each
    prompt and place, zero at the start, so that training starts with prompts that are the same for all images.
    W_1: (hidden, C) and W_2: (C, hidden), shared by all blocks, as is T: (count, C), which starts as VPT's prompts.

    Parameters: count * C + blocks * (count * H' * W' + k * k + 2 * C) + 2 * C * hidden. They are bound to one image
    size. Both K and A are linear, so the kernel is applied to the weights and the features are read only once.

    drop: dropout in training, of hidden units after the activation, and of whole channels of what K gives; both have
    probability 0.1 in the authors' code (the second) and its example (the first, which is 0 unless it is set).

    Other than the authors', the first block is conditioned too (they give it T alone, with the dropout of VPT), T is
    added in every block, A has no bias, and K starts with deviation 1 / k instead of 1.

    Args:
        spec: of the encoder; count: prompts per block; blocks: see `DeepPrompts`; hidden: width of the bottleneck;
        kernel: k, at most the grid's shorter side; dropout: probability, of both.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 10,
        blocks: Blocks = "all",
        hidden: int = 16,
        kernel: int = 3,
        dropout: float = 0.1,
    ):
        super().__init__()
        require_positive(count=count, hidden=hidden)
        chosen = choose_blocks(blocks, spec)
        width = one_width(spec, chosen, "a bottleneck that all blocks share (conditioned)")
        grids = list(dict.fromkeys(spec.blocks[i].grid for i in chosen))
        if len(grids) > 1:
            raise VptError(f"prompts: conditioned prompts need blocks of one grid, those of {spec.name} have {grids}")
        height, columns = self.grid = grids[0]
        if not 1 <= kernel <= min(height, columns):
            raise VptError(
                f"prompts: kernel is {kernel}, but the image has {height}x{columns} patches; "
                f"take 1 to {min(height, columns)}"
            )
        self.rows = {block: row for row, block in enumerate(chosen)}
        rows = len(self.rows)
        self.offset = nn.Parameter(uniform_prompts(1, count, width, spec.first_patch)[0])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.rows)
        self.kernels = nn.Parameter(torch.randn(rows, kernel, kernel) / kernel)
        self.places = nn.Parameter(torch.zeros(rows, count, height - kernel + 1, columns - kernel + 1))
        self.mlp = nn.Sequential(nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False))
        self.dropout = nn.Dropout(dropout)

    def first(self, depth: int) -> int:
        return min(self.rows)

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        if i not in self.rows:
            return tokens, None
        row = self.rows[i]
        require_grid(tokens, self.grid, "conditioned")
        kernel, places = self.kernels[row, None, None], self.places[row].unsqueeze(1)
        weights = F.conv_transpose2d(places, kernel).squeeze(1)  # (P, H, W)
        gathered = torch.einsum("phw,bhwc->bpc", weights, self.norms[row](tokens.grid))
        if self.training:  # a channel that is dropped from all places of an image gathers nothing
            gathered = gathered * self.dropout(torch.ones_like(gathered[:, :1]))
        narrow, activation, wide = self.mlp
        return tokens, self.offset + gathered + wide(self.dropout(activation(narrow(gathered))))

"""CODA-Prompt (Smith et al., CVPR 2023, arXiv:2211.13218): prompts as sums of components, new ones for every task."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.query import query_width
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.prompts.base import MOST, Blocks, BlocksSetting, Info, Prompts, PromptSettings, require_positive
from vpt.prompts.pools.keys import attended_cosines, oblique, orthonormal_rows, query_in
from vpt.prompts.pools.prefix import keys_values, prefix_blocks

PARTS = ("prompts", "keys", "attentions")


class CodaConfig(PromptSettings):
    method: Literal["coda"] = "coda"
    """Components that are weighted for every image; every further task adds its own (CODA-Prompt)."""
    components: int = Field(10, ge=1, le=MOST)
    """Components of each task."""
    length: int = Field(8, ge=2, le=MOST, multiple_of=2)
    """Rows of a prompt: the first half are keys, the second values."""
    blocks: BlocksSetting = (0, 1, 2, 3, 4)
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    mu: float = Field(0.1, ge=0)
    """Weight of the loss that keeps components, keys and attentions at right angles."""
    learned: int = Field(1, ge=1, le=MOST)
    """Tasks that it has learned, the one that trains among them; `vpt train --continue` counts them."""

    def build(self, spec: BackboneSpec) -> CodaPrompts:
        return CodaPrompts(spec, **self.arguments())

    def further(self) -> Self:
        return self.model_copy(update={"learned": self.learned + 1})


class CodaPrompts(Prompts):
    """In each chosen block p = sum_m cos(q * A_m, K_m) P_m, whose rows are keys and values beside the tokens' own.

    q: the frozen encoder's feature of the image, (B, Q); of each block P_m (l, C), K_m and A_m (Q,). The first half of
    the l rows are keys, the second values, through no projection. A task adds `components` of them, which start at
    right angles to each other and to those of tasks before, and which alone train: the others are buffers.
    Parameters: blocks * components * (l * C + 2 * Q).

    `penalty` is mu * sum over R in (K, A, P) of |R R' - I|^2, the mean over its entries and over the blocks, so that mu
    says the same of any number of components.

    Args:
        spec: of the encoder; learned: how many tasks, the one that trains among them; components: of each; length: l;
        blocks: see `DeepPrompts`; mu: see above.

    Raises:
        VptError: more components in all than can be at right angles.
    """

    needs_query = True

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        components: int = 10,
        length: int = 8,
        blocks: Blocks = (0, 1, 2, 3, 4),
        mu: float = 0.1,
        learned: int = 1,
    ):
        super().__init__()
        require_positive(components=components, learned=learned)
        chosen = prefix_blocks(blocks, spec, "coda")
        self.rows = {block: row for row, block in enumerate(chosen)}
        self.heads = [block.heads for block in spec.blocks]
        self.shape, self.components, self.mu = (length, spec.blocks[chosen[0]].width), components, mu
        past = (learned - 1) * components
        for part in PARTS:
            size = length * self.shape[1] if part == "prompts" else query_width(spec)
            self.register_buffer(f"past_{part}", torch.zeros(len(chosen), past, size))
            own = [orthonormal_rows(components, torch.zeros(past, size)) for _ in chosen]
            setattr(self, part, nn.Parameter(torch.stack(own)))

    def all_of(self, part: str) -> Tensor:
        """`part` of all components in every block, those of earlier tasks first: (blocks, M, size)."""
        return torch.cat([getattr(self, f"past_{part}"), getattr(self, part)], 1)

    def first(self, depth: int) -> int:
        return min(self.rows)

    def begin(self, images: Tensor | None, info: Info) -> Tensor:
        """The prompts of this pass, (blocks, B, l, C)."""
        weights = attended_cosines(query_in(info), self.all_of("attentions"), self.all_of("keys"))
        return torch.einsum("rbm,rms->rbs", weights, self.all_of("prompts")).unflatten(-1, self.shape)

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, KeysValues | None]:
        return tokens, keys_values(state[self.rows[i]], self.heads[i]) if i in self.rows else None

    def penalty(self, state: Any) -> Tensor | None:
        if not self.mu:
            return None
        return self.mu * torch.stack([oblique(self.all_of(part)) for part in PARTS]).sum()

    @torch.no_grad()
    def continue_from(self, learned: Self) -> None:
        for part in PARTS:
            there = learned.all_of(part)
            getattr(self, f"past_{part}").copy_(there)
            getattr(self, part).copy_(torch.stack([orthonormal_rows(self.components, rows) for rows in there]))

"""SMoPE (Le et al., ICLR 2026, arXiv:2509.24483): one prompt of experts, of which an image gets what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.errors import VptError
from vpt.prompts.base import MOST, Blocks, BlocksSetting, Info, Prompts, PromptSettings, require_positive
from vpt.prompts.pools.prefix import prefix_blocks
from vpt.prompts.starts.random import uniform_prompts


class SmopeConfig(PromptSettings):
    method: Literal["smope"] = "smope"
    """One prompt of many experts, of which every head gives an image the few that it asks for (SMoPE)."""
    experts: int = Field(25, ge=1, le=MOST)
    """Experts in each block: a key and a value in every head."""
    top: int = Field(5, ge=1, le=MOST)
    """How many of them an image gets, each head's own."""
    blocks: BlocksSetting = (0, 1, 2, 3, 4, 5)
    """Which blocks have them: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    noise: float = Field(0.4, ge=0)
    """By how much of the range of an image's scores those of experts that earlier tasks often chose are lowered in
    training, so that a further task takes others.
    """
    router: float = Field(1e-3, ge=0)
    """Weight of the loss that raises the scores of the chosen experts over those of the others."""
    keep: float = Field(1e-3, ge=0)
    """Weight of the loss by which often chosen keys of earlier tasks still choose the experts that they chose."""

    @model_validator(mode="after")
    def _has_so_many(self) -> SmopeConfig:
        if self.top > self.experts:
            raise ValueError(f"top {self.top} of {self.experts} experts; choose at most as many as there are")
        return self

    def build(self, spec: BackboneSpec) -> SmopePrompts:
        return SmopePrompts(spec, **self.arguments())


@dataclass(frozen=True)
class Asking:
    """State of a pass: a block's mean query, see `Info`, and in training the router's loss in the blocks so far."""

    mean_query: Callable[[int, Tokens], Tensor]
    losses: list[Tensor] = field(default_factory=list)


class SmopePrompts(Prompts):
    """In each chosen block and head the `top` of N experts with the largest scores, keys and values beside the tokens'.

        s_j = q . k_j / sqrt(d)                               q: the mean query of the image's tokens in this head
        s_j - noise * (max s - min s) for j in F              in training: what chooses, F: often chosen before
        router * -sum over chosen j of log softmax(s')_j      s' = s + noise * (max s - min s) where not chosen
        keep * -sum over chosen j of log softmax(o . k)_j     o: a key of F as it was; it chose by o . k as they were

    The mean query comes with the pass itself, so there is no second pass. Both losses are means over heads and blocks,
    and over images or F. All tasks train the one prompt. How often an expert is chosen is counted in training, by its
    score alone; F is what was chosen at least as often as the mean of all that were. Parameters: blocks * N * 2 * C.

    Other than there, a token weighs the chosen experts by its own query, as in any prefix, where all tokens have the
    weight s_j; the first task has no epochs with all experts; counts are of training and not of a pass after it (of
    several processes each counts its own images, and the first one's count is kept); the head is not calibrated on
    statistics of earlier classes.

    Args:
        spec: of the encoder; experts: N; top, blocks, noise, router, keep: see `SmopeConfig`.
    """

    needs_mean_query = True
    used: Tensor
    frequent: Tensor
    past_keys: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        experts: int = 25,
        top: int = 5,
        blocks: Blocks = (0, 1, 2, 3, 4, 5),
        noise: float = 0.4,
        router: float = 1e-3,
        keep: float = 1e-3,
    ):
        super().__init__()
        require_positive(experts=experts, top=top)
        if top > experts:
            raise VptError(f"prompts: top {top} of {experts} experts; choose at most as many as there are")
        chosen = prefix_blocks(blocks, spec, "smope")
        self.rows = {block: row for row, block in enumerate(chosen)}
        self.top, self.noise, self.router, self.keep = top, noise, router, keep
        first = spec.blocks[chosen[0]]

        def start() -> Tensor:
            rows = uniform_prompts(len(chosen), experts, first.width, spec.first_patch)
            return rows.unflatten(-1, (first.heads, -1)).transpose(1, 2).contiguous()

        self.keys, self.values = nn.Parameter(start()), nn.Parameter(start())  # (blocks, heads, N, d)
        counts = torch.zeros(self.keys.shape[:-1], dtype=torch.int64)
        self.register_buffer("used", counts)
        self.register_buffer("frequent", counts.bool())
        self.register_buffer("past_keys", torch.zeros_like(self.keys))

    def first(self, depth: int) -> int:
        return min(self.rows)

    def begin(self, images: Tensor | None, info: Info) -> Asking:
        if info.mean_query is None:
            raise ValueError("these prompts are chosen by the queries of a block: give Info(mean_query=...)")
        return Asking(info.mean_query)

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, KeysValues | None]:
        if i not in self.rows:
            return tokens, None
        row = self.rows[i]
        scores = products(state.mean_query(i, tokens).unsqueeze(-2), self.keys[row]).squeeze(-2)  # (B, heads, N)
        chosen = self.choose(scores, row)
        if self.training:
            state.losses.append(self._router_loss(scores, chosen))
            if torch.is_grad_enabled():  # a pass without a gradient is repeated with one
                self.used[row] += F.one_hot(scores.topk(self.top).indices, scores.shape[-1]).sum((0, 2))
        heads = torch.arange(chosen.shape[1], device=chosen.device).unsqueeze(-1)
        return tokens, KeysValues(self.keys[row, heads, chosen], self.values[row, heads, chosen])

    def choose(self, scores: Tensor, row: int) -> Tensor:
        """Scores (B, heads, N) in a block -> the numbers of the chosen experts (B, heads, top), the largest first."""
        if self.training:
            scores = scores - self.noise * spans(scores) * self.frequent[row]
        return scores.topk(self.top).indices

    def _router_loss(self, scores: Tensor, chosen: Tensor) -> Tensor:
        margins = (self.noise * spans(scores)).expand_as(scores).scatter(-1, chosen, 0.0)
        return surprise(scores + margins, chosen).mean()

    def _keep_loss(self) -> Tensor:
        before = products(self.past_keys, self.past_keys).topk(self.top).indices
        lost = surprise(products(self.past_keys, self.keys), before)  # (blocks, heads, N)
        return ((lost * self.frequent).sum(-1) / self.frequent.sum(-1).clamp_min(1)).mean()

    def penalty(self, state: Any) -> Tensor:
        return self.router * torch.stack(state.losses).mean() + self.keep * self._keep_loss()

    @torch.no_grad()
    def continue_from(self, learned: Self) -> None:
        self.load_state_dict(learned.state_dict())
        self.past_keys.copy_(learned.keys)
        usual = self.used.sum(-1, keepdim=True) / (self.used > 0).sum(-1, keepdim=True).clamp_min(1)
        self.frequent |= (self.used > 0) & (self.used >= usual)


def products(queries: Tensor, keys: Tensor) -> Tensor:
    """(..., M, d) and (..., N, d) -> (..., M, N), over sqrt(d), in single precision also under autocast."""
    with torch.autocast(keys.device.type, enabled=False):
        return queries.float() @ keys.float().mT / keys.shape[-1] ** 0.5


def spans(scores: Tensor) -> Tensor:
    """From the smallest to the largest of each row: (..., N) -> (..., 1), through which no gradient goes."""
    least, largest = scores.detach().aminmax(dim=-1, keepdim=True)
    return largest - least


def surprise(scores: Tensor, chosen: Tensor) -> Tensor:
    """The sum of -log softmax over the chosen ones: (..., N) and (..., K) -> (...)."""
    return -scores.log_softmax(-1).gather(-1, chosen).sum(-1)

"""L2P (Wang et al., CVPR 2022, arXiv:2112.08654): a pool of prompts, of which every image gets those nearest to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.query import query_width
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.prompts.base import MOST, Info, Prompts, PromptSettings, one_width, require_positive
from vpt.prompts.pools.keys import cosines, query_in
from vpt.prompts.starts.random import uniform_prompts


class L2pConfig(PromptSettings):
    method: Literal["l2p"] = "l2p"
    """Of a pool of prompts those whose keys are nearest to the image, beside its patches (L2P)."""
    pool: int = Field(10, ge=1, le=MOST)
    """Prompts in the pool, which all tasks share."""
    length: int = Field(5, ge=1, le=MOST)
    """Tokens of each of them."""
    top: int = Field(5, ge=1, le=MOST)
    """How many an image gets."""
    pull: float = Field(0.5, ge=0)
    """Weight of the loss that draws the keys to the images that choose them."""

    @model_validator(mode="after")
    def _has_so_many(self) -> L2pConfig:
        if self.top > self.pool:
            raise ValueError(f"top {self.top} of a pool of {self.pool}; choose at most as many as there are")
        return self

    def build(self, spec: BackboneSpec) -> L2pPrompts:
        return L2pPrompts(spec, **self.arguments())


class Chosen(NamedTuple):
    """State of a pass: which prompts of the pool each image gets, and the cosines of their keys, (B, top) each."""

    numbers: Tensor
    cosines: Tensor


class L2pPrompts(Prompts):
    """The `top` prompts whose keys have the largest cosines with q, `length` tokens each, before the first block.

    q: the frozen encoder's feature of the image. Every image chooses for itself, whatever else is in its batch. The
    tokens travel through all blocks, as shallow prompts do; `penalty` is pull * sum of 1 - cos(q, k) over the keys that
    were chosen, the mean over images. All tasks train the one pool. Parameters: pool * (length * C + Q).

    Other than there, the head reads what it reads of any prompts (the CLS token), not the mean of the prompts' outputs.

    Args:
        spec: of the encoder; pool, length, top, pull: see `L2pConfig`.

    Raises:
        VptError: an encoder whose blocks change their width, through which no token can travel.
    """

    needs_query = True

    def __init__(self, spec: BackboneSpec, *, pool: int = 10, length: int = 5, top: int = 5, pull: float = 0.5):
        super().__init__()
        require_positive(pool=pool, length=length, top=top)
        if top > pool:
            raise VptError(f"prompts: top {top} of a pool of {pool}; choose at most as many as there are")
        width = one_width(spec, range(spec.depth), "a prompt that travels through all blocks (l2p)")
        self.tokens = nn.Parameter(uniform_prompts(pool, length, width, spec.first_patch))
        self.keys = nn.Parameter(uniform_prompts(1, pool, query_width(spec), spec.first_patch)[0])
        self.top, self.pull = top, pull

    def begin(self, images: Tensor | None, info: Info) -> Chosen:
        found = cosines(query_in(info), self.keys).topk(self.top, dim=1)
        return Chosen(found.indices, found.values)

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, None]:
        return (replace(tokens, prompts=self.tokens[state.numbers].flatten(1, 2)) if i == 0 else tokens), None

    def penalty(self, state: Any) -> Tensor:
        return self.pull * (1 - state.cosines).sum(1).mean()

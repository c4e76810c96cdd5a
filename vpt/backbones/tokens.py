"""What travels through an encoder: tokens, what a block attends to beside them, and the features that come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Keep = Literal["all", "first"]
"""Which rows of the tokens a block gives: all of them, or only the CLS token, where nothing else is read."""


@dataclass(frozen=True)
class Tokens:
    """The state between two blocks.

    grid: (B, H, W, C) patch tokens; prefix: (B, R, C) CLS and register tokens, R may be 0;
    prompts: (B, P, C) prompts that travel from block to block (VPT-shallow), P may be 0.

    sequence: the three as parts of one tensor, where a block left them so; `replace` does not hand it on, since what it
    makes is no longer part of that tensor.
    """

    grid: Tensor
    prefix: Tensor
    prompts: Tensor
    sequence: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def parts_of(cls, sequence: Tensor, prefix: int, prompts: int, grid: tuple[int, int]) -> Tokens:
        """One sequence (B, R + P + H * W, C) as the tokens that it is made of: views of it, which know it."""
        parts = sequence.split([prefix, prompts, grid[0] * grid[1]], dim=1)
        tokens = cls(parts[2].unflatten(1, grid), parts[0], parts[1])
        object.__setattr__(tokens, "sequence", sequence)
        return tokens

    @classmethod
    def of_grid(cls, grid: Tensor) -> Tokens:
        """Patches (B, H, W, C) with nothing beside them."""
        none = grid.new_empty(len(grid), 0, grid.shape[-1])
        return cls(grid, prefix=none, prompts=none)

    @classmethod
    def joined(cls, some: Sequence[Tokens]) -> Tokens:
        """Tokens of several batches, alike in all but B, as those of one."""
        if len(some) == 1:
            return some[0]
        sequences = [tokens.sequence for tokens in some if tokens.sequence is not None]
        if len(sequences) == len(some):
            return some[0]._like(torch.cat(sequences))
        return cls(*(torch.cat(parts) for parts in zip(*(tokens._parts() for tokens in some), strict=True)))

    def split(self, sizes: Sequence[int]) -> list[Tokens]:
        """`joined` undone: views of these, of so many samples each."""
        if len(sizes) == 1:
            return [self]
        if self.sequence is not None:
            return [self._like(part) for part in self.sequence.split(list(sizes))]
        return [Tokens(*parts) for parts in zip(*(part.split(list(sizes)) for part in self._parts()), strict=True)]

    def of(self, samples: Tensor) -> Tokens:
        """The tokens of these samples (n,), by their numbers."""
        if self.sequence is not None:
            return self._like(self.sequence[samples])
        return Tokens(*(part[samples] for part in self._parts()))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.grid, self.prefix, self.prompts

    def _like(self, sequence: Tensor) -> Tokens:
        """A sequence taken apart as this one is."""
        height, width = self.grid.shape[1:3]
        return Tokens.parts_of(sequence, self.prefix.shape[1], self.prompts.shape[1], (height, width))


@dataclass(frozen=True)
class SeparateContext:
    """Prompts (P, C) or (B, P, C) that tokens attend to in a step of their own, after a block's self-attention.

    That step has a softmax over the prompts alone, and a residual of its own; a plain tensor as context is attended to
    in the self-attention itself, beside the tokens, under one softmax.

    normed: tokens and prompts go through the block's first norm before that step, else both are taken as they are.
    """

    prompts: Tensor
    normed: bool = False


@dataclass(frozen=True)
class KeysValues:
    """A block's prompts as keys and values already, (1 or B, heads, P, head_dim) each; see `Backbone.project`."""

    keys: Tensor
    values: Tensor


Context = Tensor | SeparateContext | KeysValues


@dataclass(frozen=True)
class Features:
    """What a head reads.

    grid: (B, C, H, W) patch tokens after the final norm; prefix: (B, R, C) likewise;
    levels: (B, C_k, H_k, W_k) each, the patch tokens as they left the blocks that the head asked for;
    pooled: (B, C), the vector that the encoder itself makes of an image, where it has another way than its CLS token;
    prompts: (B, P, C), what has become of those that travelled, finished as the prefix is; None of an encoder that
    leaves them behind.
    """

    grid: Tensor
    prefix: Tensor
    levels: tuple[Tensor, ...] = ()
    pooled: Tensor | None = None
    prompts: Tensor | None = None

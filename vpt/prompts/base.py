"""The one method that makes a prompt method: `enter(i, tokens)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec, Context, Tokens
from vpt.errors import VptError
from vpt.prompts.random import projection, uniform_prompts

Blocks = str | Sequence[int]  # "all", "global", "last:4" or block numbers


class Prompts(nn.Module):
    """No prompts: every block runs as it is. Methods override `enter`.

    `starts`: the blocks whose tokens the prompts can start from, `count` prompts for each (`vpt.prompts.initialise`).
    `fixed`: in eval mode `enter` leaves the tokens as they are and gives every block the same context (P, C), whatever
    the tokens, so that it can be computed once (`PromptedModel.freeze_prompts`).
    """

    starts: tuple[int, ...] = ()
    fixed: bool = False
    count: int = 0

    def first(self, depth: int) -> int:
        """The first of `depth` blocks that does not run as in the frozen encoder; `depth` where all do.

        Methods that say nothing else act from the first block on.
        """
        return depth if type(self) is Prompts else 0

    def enter(self, i: int, tokens: Tokens) -> tuple[Tokens, Context | None]:
        """Called before block `i`: the tokens that enter it, and what it attends to besides, (P, C) or (B, P, C)."""
        return tokens, None

    def start_from(self, tokens: Tensor) -> None:
        """Set the prompts to tokens (len(starts), count, C) of the frozen encoder."""
        raise VptError(f"prompts: {type(self).__name__} cannot start from tokens; choose init uniform")


class PromptTable(nn.Module):
    """Learned prompts (rows, count, C): published initialisation, optional shared projection, dropout per sample.

    Args:
        spec: of the encoder they are for.
        rows: how many sets of prompts (blocks); count: prompts in a set.
        project: width in which the prompts are learned, mapped to the encoder's by one shared Linear; None learns
            them in the encoder's width.
        dropout: probability, drawn per sample as published (Jia et al., ECCV 2022, appendix A).
    """

    def __init__(self, spec: BackboneSpec, *, rows: int, count: int, project: int | None, dropout: float):
        super().__init__()
        if count < 1:
            raise VptError(f"prompts: count is {count}; at least 1 is needed, or choose `none` for no prompts")
        if project is not None and project < 1:
            raise VptError(f"prompts: project is {project}; at least 1 is needed, or None for no projection")
        self.tokens = nn.Parameter(uniform_prompts(rows, count, project or spec.width, spec.patch))
        self.project = nn.Identity() if project is None else projection(project, spec.width)
        self.dropout = nn.Dropout(dropout)

    def row(self, row: int, batch: int) -> Tensor:
        """Prompts (P, C), or (B, P, C) where dropout makes them differ between samples."""
        prompts = self.project(self.tokens[row])
        if self.training and self.dropout.p > 0:
            return self.dropout(prompts.expand(batch, -1, -1))
        return prompts

    def start_from(self, tokens: Tensor) -> None:
        """Set the prompts to tokens (rows, count, C) of the frozen encoder, see `vpt.prompts.init`."""
        if not isinstance(self.project, nn.Identity):
            raise VptError("prompts: they are projected, so they cannot start from tokens; leave out `project`")
        if tokens.shape != self.tokens.shape:
            raise VptError(
                f"prompts: tokens to start from are {tuple(tokens.shape)}, expected {tuple(self.tokens.shape)}; "
                "give (blocks, count, width), the blocks in their order"
            )
        with torch.no_grad():
            self.tokens.copy_(tokens)


def choose_blocks(blocks: Blocks, depth: int, windowed: Sequence[int] = ()) -> tuple[int, ...]:
    """`"all"`, `"global"` (all but the windowed ones), `"last:4"` or block numbers -> sorted numbers below `depth`.

    >>> choose_blocks("last:2", 12)
    (10, 11)
    >>> choose_blocks("global", 4, windowed=(0, 2))
    (1, 3)
    """
    if blocks == "all":
        return tuple(range(depth))
    if blocks == "global":
        blocks = [i for i in range(depth) if i not in windowed]
        if not blocks:
            raise VptError("prompts: blocks global, but all of the encoder's blocks are windowed; choose all or last:K")
    if isinstance(blocks, str):
        kind, _, number = blocks.partition(":")
        if kind != "last" or not number.isdecimal() or not 1 <= int(number) <= depth:
            raise VptError(
                f"prompts: blocks {blocks!r} is not known; expected all, global, last:K with K in 1..{depth}, or a list"
            )
        return tuple(range(depth - int(number), depth))
    chosen = tuple(sorted(set(blocks)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise VptError(
            f"prompts: blocks {list(blocks)} are not in 0..{depth - 1}; name at least one of the encoder's blocks"
        )
    return chosen


def shared_over_batch(prompts: Tensor, batch: int) -> Tensor:
    """(P, C) or (B, P, C) -> (B, P, C)."""
    return prompts if prompts.ndim == 3 else prompts.expand(batch, *prompts.shape)

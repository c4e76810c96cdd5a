"""What encoders have in common whose stages begin with pooled queries: Hiera, and that of SAM 2."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from vpt.backbones.attention import asked_apart, keys_and_values, mix_values, project_queries, split_heads
from vpt.backbones.base import BlockAttention, cannot_travel
from vpt.backbones.feed_forward import feed_forward
from vpt.backbones.pieces import is_half, normalise
from vpt.backbones.timm_model import StagedBackbone
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.errors import VptError


class PooledBackbone(StagedBackbone):
    """timm's blocks over all stages, the first of each with pooled queries and a wider output, with prompts.

    Prompts are keys and values of a block beside all tokens that enter it, in every window of an image; they are never
    pooled. A block without context is timm's own call, so with no prompts the output equals timm's bit for bit (except
    in bfloat16 on a CPU, see `VitBackbone`). The features are the tokens as they leave the last block; the norm comes
    after the pooling, as in timm.

    Prompts cannot travel: their width would have to change. Nor can tokens attend to prompts apart in a block that
    widens them, whose projections take narrower ones.
    """

    @abstractmethod
    def arranged(self, i: int, grid: Tensor) -> Tensor:
        """Tokens (B, H, W, C) as block `i` takes them; `i` may be the depth: as they are pooled to a vector."""

    @abstractmethod
    def placed(self, i: int, arranged: Tensor) -> Tensor:
        """What left block `i` -> (B, H, W, C)."""

    @abstractmethod
    def attend(self, block: Any, normed: Tensor, beside: KeysValues | None) -> Tensor:
        """What normed tokens gather in timm's block, not projected yet, their queries pooled where it pools them."""

    @abstractmethod
    def widened(self, block: Any, tokens: Tensor, normed: Tensor) -> Tensor:
        """What the block adds its attention to: its tokens, or where a stage begins pooled and wider ones."""

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        if tokens.prompts.shape[1] > 0:
            raise cannot_travel(self.spec, "pools its tokens and has stages of different width")
        arranged = self.arranged(i, tokens.grid)
        if context is None and not is_half(arranged):
            return Tokens.of_grid(self.placed(i, self.encoder.blocks[i](arranged)))
        return Tokens.of_grid(self._with_context(i, arranged, context))

    def _with_context(self, i: int, tokens: Tensor, context: Context | None) -> Tensor:
        """timm's block, with a context -> (B, H', W', C'): behind the softmax every token is in its place."""
        block = self.encoder.blocks[i]
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        if isinstance(beside, SeparateContext):
            self._require_no_wider(i)
        normed = normalise(block.norm1, tokens)
        own = beside if isinstance(beside, KeysValues) else None
        mixed = self.placed(i, self.attend(block, normed, own))
        tokens = self.placed(i, self.widened(block, tokens, normed)) + block.ls1(block.attn.proj(mixed))
        if isinstance(beside, SeparateContext):
            asking, asked = asked_apart(block.norm1, tokens, beside)
            mixed = attend_apart(block.attn, self.spec.blocks[i].heads, asking.flatten(1, -2), asked)
            tokens = tokens + block.ls1(mixed.view_as(tokens))
        return tokens + block.ls2(feed_forward(block.mlp, normalise(block.norm2, tokens)))

    def _require_no_wider(self, i: int) -> None:
        narrow = [n for n, block in enumerate(self.encoder.blocks) if block.dim == block.dim_out]
        if i not in narrow:
            raise VptError(
                f"prompts: cross, but block {i} of {self.spec.name} gives wider tokens than its projections take; "
                f"choose among the blocks {', '.join(map(str, narrow))}"
            )

    def attention_of(self, i: int) -> BlockAttention:
        block = self.encoder.blocks[i]
        return BlockAttention(block.norm1, block.attn.qkv, self.spec.blocks[i].heads)

    def finish(self, tokens: Tokens) -> Features:
        pooled = None
        if self.pooling == "own":
            pooled = self.encoder.norm(self.encoder.pool(self.arranged(self.spec.depth, tokens.grid)))
        return Features(grid=tokens.grid.permute(0, 3, 1, 2), prefix=tokens.prefix, pooled=pooled)


class Pool(nn.Module):
    """timm's pooling of tokens to one vector, without the norm that follows it."""

    def __init__(self, head: Any):
        super().__init__()
        self.kind, self.axes = head.pool_type, head.pool_dim

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, ..., C) -> (B, C)."""
        if self.kind == "avg":
            return tokens.mean(self.axes)
        largest = tokens.amax(self.axes)
        return largest if self.kind == "max" else 0.5 * (largest + tokens.mean(self.axes))


def attend_apart(attention: Any, heads: int, tokens: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, N, C) to the context (P, C) or (B, P, C) alone -> (B, N, C)."""
    (queries,) = split_heads(project_queries(attention.qkv, tokens), heads, 1)
    keys, values = (part.expand(len(tokens), -1, -1, -1) for part in keys_and_values(attention.qkv, heads, context))
    return attention.proj(mix_values(queries, keys, values).transpose(1, 2).flatten(2))


def pair(size: Any) -> tuple[int, int]:
    """(rows, columns) or (height, width) of a sequence of two."""
    one, other = size
    return one, other

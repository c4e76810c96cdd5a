"""timm's blocks of plain ViTs, each kind taken apart its own way: norms before or after, attention and MLP in turn or
side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import Tensor, nn

from vpt.backbones.attention import asked_apart, attend, attend_apart, mix_values
from vpt.backbones.base import BlockAttention
from vpt.backbones.feed_forward import feed_forward
from vpt.backbones.pieces import normalise
from vpt.backbones.tokens import KeysValues, SeparateContext

Beside = KeysValues | SeparateContext | None
"""What a block attends to besides its tokens, projected already where it shares their softmax."""


class BlockForm(ABC):
    """How a kind of timm's blocks is run with prompts. It holds nothing: the block is handed on."""

    norms_after = False
    takes_apart = True
    """Whether there is a place between attention and MLP for prompts that are attended to in a step of their own."""

    @abstractmethod
    def attention_of(self, block: Any) -> BlockAttention:
        """Its way from tokens to keys and values, all heads that it has."""

    @abstractmethod
    def attentions(self, block: Any) -> Iterable[nn.Module]:
        """timm's modules of attention in it; none where they are not modules of their own."""

    def branches(self, block: Any) -> int:
        """How many attentions run at once."""
        return max(1, len(list(self.attentions(block))))

    @abstractmethod
    def run(self, block: Any, sequence: Tensor, beside: Beside, rows: int) -> Tensor:
        """Tokens (B, N, C) -> the first `rows` of what leaves the block (B, rows, C)."""


class InTurn(BlockForm):
    """`Block`: x + attention(norm(x)), then x + mlp(norm(x))."""

    def attention_of(self, block: Any) -> BlockAttention:
        return of_module(block.norm1, block.attn)

    def attentions(self, block: Any) -> Iterable[nn.Module]:
        return [block.attn]

    def run(self, block: Any, sequence: Tensor, beside: Beside, rows: int) -> Tensor:
        normed, sequence = normalise(block.norm1, sequence), sequence[:, :rows]
        mixed = attend(block.attn, normed, _within(beside), rows)
        sequence = sequence + block.drop_path1(block.ls1(mixed))
        if isinstance(beside, SeparateContext):
            mixed = attend_apart(block.attn, *asked_apart(block.norm1, sequence, beside))
            sequence = sequence + block.drop_path1(block.ls1(mixed))
        return sequence + block.drop_path2(block.ls2(feed_forward(block.mlp, normalise(block.norm2, sequence))))


class NormedAfter(BlockForm):
    """`ResPostBlock`: x + norm(attention(x)), then x + norm(mlp(x)). Prompts enter as they are, like all tokens."""

    norms_after = True

    def attention_of(self, block: Any) -> BlockAttention:
        return of_module(nn.Identity(), block.attn)

    def attentions(self, block: Any) -> Iterable[nn.Module]:
        return [block.attn]

    def run(self, block: Any, sequence: Tensor, beside: Beside, rows: int) -> Tensor:
        mixed = attend(block.attn, sequence, _within(beside), rows)
        sequence = sequence[:, :rows] + block.drop_path1(block.norm1(mixed))
        if isinstance(beside, SeparateContext):
            mixed = attend_apart(block.attn, *asked_apart(nn.Identity(), sequence, beside))
            sequence = sequence + block.drop_path1(block.norm1(mixed))
        return sequence + block.drop_path2(block.norm2(feed_forward(block.mlp, sequence)))


class ManyAtOnce(BlockForm):
    """`ParallelThingsBlock` (Touvron et al., ECCV 2022): x + the sum of n attentions, then x + the sum of n MLPs.

    Every attention has a norm and heads of its own, so a prompt has n times as many keys and values, those of the first
    attention first.
    """

    def attention_of(self, block: Any) -> BlockAttention:
        own = list(self.attentions(block))
        k_norm = ByAttention([each.k_norm for each in own])
        return BlockAttention(nn.Identity(), Together(block.attns), sum(each.num_heads for each in own), k_norm)

    def attentions(self, block: Any) -> Iterable[Any]:
        return [branch.attn for branch in block.attns]

    def run(self, block: Any, sequence: Tensor, beside: Beside, rows: int) -> Tensor:
        own, count = _within(beside), len(block.attns)
        parts: list[KeysValues | None] = [None] * count
        if own is not None:
            each = zip(own.keys.chunk(count, 1), own.values.chunk(count, 1), strict=True)
            parts = [KeysValues(keys, values) for keys, values in each]
        mixed = [
            attend(branch.attn, normalise(branch.norm, sequence), part, rows)
            for branch, part in zip(block.attns, parts, strict=True)
        ]
        sequence = sequence[:, :rows] + _sum(block.attns, mixed)
        if isinstance(beside, SeparateContext):
            mixed = [attend_apart(b.attn, *asked_apart(b.norm, sequence, beside)) for b in block.attns]
            sequence = sequence + _sum(block.attns, mixed)
        return sequence + _sum(block.ffns, [feed_forward(b.mlp, normalise(b.norm, sequence)) for b in block.ffns])


class SideBySide(BlockForm):
    """`ParallelScalingBlock` (Dehghani et al., ICML 2023): x + attention(norm(x)) + mlp(norm(x)), of one projection.

    Nothing comes between attention and MLP.
    """

    takes_apart = False

    def attention_of(self, block: Any) -> BlockAttention:
        return BlockAttention(block.in_norm, WithoutMlp(block), block.num_heads, block.k_norm, block.q_norm)

    def attentions(self, block: Any) -> Iterable[nn.Module]:
        return []

    def run(self, block: Any, sequence: Tensor, beside: Beside, rows: int) -> Tensor:
        beside = _within(beside)
        hidden, *others = block.in_proj(normalise(block.in_norm, sequence)).split(block.in_split, -1)
        queries, keys, values = (part.unflatten(-1, (block.num_heads, -1)) for part in others)
        queries, keys = block.q_norm(queries[:, :rows]), block.k_norm(keys)
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        if beside is not None:
            keys = torch.cat([beside.keys.to(keys.dtype).expand(len(keys), -1, -1, -1), keys], 2)
            values = torch.cat([beside.values.to(values.dtype).expand(len(values), -1, -1, -1), values], 2)
        mixed = mix_values(queries, keys, values).transpose(1, 2).flatten(2)
        hidden = hidden[:, :rows] if block.mlp_bias is None else hidden[:, :rows] + block.mlp_bias
        hidden = block.mlp_drop(block.mlp_act(hidden))
        if block.out_proj is not None:
            after = block.out_proj(torch.cat([mixed, hidden], -1))
        else:
            after = block.attn_out_proj(mixed) + block.mlp_out_proj(hidden)
        return sequence[:, :rows] + block.drop_path(block.ls(after))


FORMS: dict[type[nn.Module], BlockForm] = {
    Block: InTurn(),
    ResPostBlock: NormedAfter(),
    ParallelThingsBlock: ManyAtOnce(),
    ParallelScalingBlock: SideBySide(),
}


def of_module(norm: nn.Module, attention: Any) -> BlockAttention:
    """The parts of timm's `Attention` after a norm."""
    return BlockAttention(norm, attention.qkv, attention.num_heads, attention.k_norm, attention.q_norm)


def form_of(block: nn.Module) -> BlockForm:
    return FORMS[type(block)]


def odd_parts(blocks: Iterable[nn.Module]) -> set[str]:
    """Names of the blocks and attentions among these that there is no form for."""
    blocks = list(blocks)
    odd = {type(block).__name__ for block in blocks if type(block) not in FORMS}
    known = (block for block in blocks if type(block) in FORMS)
    attentions = (own for block in known for own in form_of(block).attentions(block))
    return odd | {type(own).__name__ for own in attentions if type(own) is not Attention}


class Together(nn.Module):
    """n branches of attention with a norm each: tokens (..., C) -> queries, keys and values (..., 3 * n * C), the
    queries of all first.
    """

    def __init__(self, branches: Iterable[Any]):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, tokens: Tensor) -> Tensor:
        branches: Any = self.branches
        each = [branch.attn.qkv(branch.norm(tokens)).chunk(3, -1) for branch in branches]
        return torch.cat([part for parts in zip(*each, strict=True) for part in parts], -1)


class ByAttention(nn.Module):
    """Keys (B, n * heads, P, d) -> each attention's own by its norm."""

    def __init__(self, norms: Iterable[nn.Module]):
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, keys: Tensor) -> Tensor:
        parts = keys.chunk(len(self.norms), 1)
        return torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], 1)


class WithoutMlp(nn.Module):
    """Of a projection to an MLP's hidden numbers, queries, keys and values the last three: (..., C) -> (..., 3 * C)."""

    def __init__(self, block: Any):
        super().__init__()
        self.projection, self.hidden = block.in_proj, block.in_split[0]

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.projection(tokens)
        return projected[..., self.hidden :]


def _within(beside: Beside) -> KeysValues | None:
    return beside if isinstance(beside, KeysValues) else None


def _sum(branches: Iterable[Any], parts: Iterable[Tensor]) -> Tensor:
    """Of what timm's branches give, each scaled as it is there."""
    scaled = [branch.drop_path(branch.ls(part)) for branch, part in zip(branches, parts, strict=True)]
    return torch.stack(scaled).sum(0)

"""Adapter over timm's ViTs whose attention knows how far apart two patches lie: BEiT and `VisionTransformerRelPos`.

Every pair of patches has a learned bias on its score. Prompts have no place, so what asks them and what they ask has
none, as between patches and prompts of any other encoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.vision_transformer_relpos import RelPosBlock, ResPostRelPosBlock, VisionTransformerRelPos
from torch import Tensor, nn

from vpt.backbones.attention import KEPT, asked_apart, project_keys_values, project_queries, split_heads
from vpt.backbones.base import BlockAttention, norms_nothing_before
from vpt.backbones.biased import mix_biased
from vpt.backbones.eva import merge_biases, scaled
from vpt.backbones.feed_forward import feed_forward
from vpt.backbones.pieces import is_half, normalise
from vpt.backbones.tokens import Context, Keep, KeysValues, SeparateContext, Tokens
from vpt.backbones.vit import PlainBackbone, join, only_first, parts_like
from vpt.errors import VptError


class RelativeBackbone(PlainBackbone):
    """timm's `Beit` (Bao et al., ICLR 2022) and `VisionTransformerRelPos`, with a bias for each block or for all.

    A block without prompts is timm's own call, so with none the output equals timm's bit for bit. The norm of a block
    that has it after its attention does not apply to what enters, so prompts enter as they are, like all other tokens.
    """

    def __init__(self, vit: Any, **about: Any):
        super().__init__(vit, **about)
        self.norms_after = type(vit.blocks[0]) is ResPostRelPosBlock
        for block in vit.blocks:
            merge_biases(block.attn)
        self._biases: dict[int, tuple[str, Tensor]] = {}

    def embed(self, images: Tensor) -> Tokens:
        vit: Any = self.vit
        sequence = vit.patch_embed(images)
        if vit.cls_token is not None:
            sequence = torch.cat([vit.cls_token.expand(len(sequence), -1, -1), sequence], 1)
        if getattr(vit, "pos_embed", None) is not None:
            sequence = sequence + vit.pos_embed
        return Tokens.parts_of(sequence, self.spec.prefix, 0, self.spec.finished.grid)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.vit.blocks[i]
        sequence, travelling = join(tokens), tokens.prompts.shape[1]
        one_row = keep == "first" and self.spec.has_cls
        if context is None and not travelling and not one_row:
            return parts_like(tokens, block(sequence, self._shared()))
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        entering = normalise(_norm_before(block), sequence)
        bias = self.bias(i)
        if bias is not None:
            bias = without_places(bias, self.spec.prefix, travelling)
        if one_row:
            sequence, tokens = sequence[:, :1], only_first(tokens)
        own = beside if isinstance(beside, KeysValues) else None
        sequence = sequence + _first_branch(block, attend(block.attn, entering, own, sequence.shape[1], bias))
        if isinstance(beside, SeparateContext):
            if beside.normed and self.norms_after:
                raise norms_nothing_before(self.spec)
            asked = asked_apart(_norm_before(block), sequence, beside)
            sequence = sequence + _first_branch(block, attend_apart(block.attn, *asked))
        return parts_like(tokens, sequence + _second_branch(block, sequence))

    def bias(self, i: int) -> Tensor | None:
        """(1, heads, N, N) of the tokens that the encoder itself has, kept as long as nothing changes it."""
        learned = list(self._learned(i))
        if not learned:
            return None
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(p.requires_grad for p in learned)):
            return self._made(i)
        key = " ".join(f"{p.device} {p.data_ptr()} {p._version}" for p in learned)
        if i not in self._biases or self._biases[i][0] != key:
            device = learned[0].device.type
            # training may use what inference made, and who computes in float32 what was made under autocast
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
                self._biases[i] = key, self._made(i)
        return self._biases[i][1]

    def _made(self, i: int) -> Tensor:
        block: Any = self.vit.blocks[i]
        parts = [part for part in (_own_bias(block.attn), self._shared()) if part is not None]
        return sum(parts[1:], parts[0]).reshape(1, block.attn.num_heads, *parts[0].shape[-2:])

    def _shared(self) -> Tensor | None:
        """The bias that all blocks have in common, as timm gives it to them."""
        vit: Any = self.vit
        if isinstance(vit, Beit):
            return None if vit.rel_pos_bias is None else vit.rel_pos_bias()
        return None if vit.shared_rel_pos is None else vit.shared_rel_pos.get_bias()

    def _learned(self, i: int) -> Iterable[nn.Parameter]:
        vit: Any = self.vit
        attention = vit.blocks[i].attn
        if isinstance(vit, Beit):
            tables, modules = [attention.relative_position_bias_table], [vit.rel_pos_bias]
        else:
            tables, modules = [], [attention.rel_pos, vit.shared_rel_pos]
        of_modules = (module.parameters() for module in modules if module is not None)
        return chain((table for table in tables if table is not None), *of_modules)

    def attention_of(self, i: int) -> BlockAttention:
        block: Any = self.vit.blocks[i]
        k_norm, q_norm = (getattr(block.attn, name, None) for name in ("k_norm", "q_norm"))
        return BlockAttention(_norm_before(block), block.attn.qkv, block.attn.num_heads, k_norm, q_norm)

    def pool(self, sequence: Tensor) -> Tensor:
        vit: Any = self.vit
        return sequence[:, 0] if vit.global_pool == "token" else sequence[:, vit.num_prefix_tokens :].mean(1)

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        known = (BeitBlock, RelPosBlock, ResPostRelPosBlock)
        odd = {type(block).__name__ for block in model.blocks if type(block) not in known}
        if type(model) not in (Beit, VisionTransformerRelPos) or odd:
            found = f"{type(model).__name__}{' with ' if odd else ''}{', '.join(sorted(odd))}"
            raise VptError(
                f"backbone {name}: {found} is not supported; choose another, for example beit_base_patch16_224 or "
                "vit_relpos_small_patch16_224"
            )


def attend(attention: Any, tokens: Tensor, beside: KeysValues | None, rows: int, bias: Tensor | None) -> Tensor:
    """Self-attention of tokens (B, N, C) as they enter, prompts beside them -> its first `rows` (B, rows, C).

    bias: (1, heads, N, N).
    """
    batch, heads = tokens.shape[0], attention.num_heads
    (queries,) = split_heads(project_queries(attention.qkv, tokens[:, :rows]), heads, 1)
    keys, values = split_heads(project_keys_values(attention.qkv, tokens), heads, 2)
    queries, keys = _normed(attention, "q_norm", queries), _normed(attention, "k_norm", keys)
    if bias is not None:
        bias = bias[:, :, :rows].to(queries.dtype)
    if beside is not None:
        keys = torch.cat([beside.keys.to(keys.dtype).expand(batch, -1, -1, -1), keys], 2)
        values = torch.cat([beside.values.to(values.dtype).expand(batch, -1, -1, -1), values], 2)
        bias = None if bias is None else F.pad(bias, (beside.keys.shape[2], 0))
    few = not torch.is_grad_enabled() or queries[..., 0].numel() * keys.shape[-2] <= KEPT
    if bias is not None and few and is_half(queries) and not torch.compiler.is_compiling():
        return _gather(attention, mix_biased(queries * queries.shape[-1] ** -0.5, keys, values, bias))
    return _gather(attention, F.scaled_dot_product_attention(queries, keys, values, bias))


def attend_apart(attention: Any, tokens: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, N, C) to the context (P, C) or (B, P, C) alone -> (B, N, C)."""
    batch, heads = tokens.shape[0], attention.num_heads
    (queries,) = split_heads(project_queries(attention.qkv, tokens), heads, 1)
    keys, values = split_heads(project_keys_values(attention.qkv, context), heads, 2)
    keys, values = _normed(attention, "k_norm", keys).expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
    queries = _normed(attention, "q_norm", queries)
    return _gather(attention, F.scaled_dot_product_attention(queries, keys, values))


def without_places(bias: Tensor, first: int, count: int) -> Tensor:
    """A bias (1, heads, N, N) with `count` rows and columns of zeros after the first ones."""
    if not count:
        return bias
    for side in (-2, -1):
        shape = list(bias.shape)
        shape[side] = count
        before, after = bias.narrow(side, 0, first), bias.narrow(side, first, bias.shape[side] - first)
        bias = torch.cat([before, bias.new_zeros(shape), after], side)
    return bias


def _normed(attention: Any, norm: str, heads: Tensor) -> Tensor:
    return getattr(attention, norm)(heads) if hasattr(attention, norm) else heads


def _gather(attention: Any, mixed: Tensor) -> Tensor:
    """Mixed values (B, heads, N, d) -> (B, N, C)."""
    return attention.proj_drop(attention.proj(mixed.transpose(1, 2).flatten(2)))


def _own_bias(attention: Any) -> Tensor | None:
    if hasattr(attention, "relative_position_bias_table"):
        return None if attention.relative_position_bias_table is None else attention._get_rel_pos_bias()
    return None if attention.rel_pos is None else attention.rel_pos.get_bias()


# --- the three kinds of blocks ----------------------------------------------------------------------------------------


def _norm_before(block: Any) -> nn.Module:
    return nn.Identity() if type(block) is ResPostRelPosBlock else block.norm1


def _first_branch(block: Any, mixed: Tensor) -> Tensor:
    if type(block) is BeitBlock:
        return block.drop_path1(scaled(block.gamma_1, mixed))
    return block.drop_path1(block.norm1(mixed) if type(block) is ResPostRelPosBlock else block.ls1(mixed))


def _second_branch(block: Any, sequence: Tensor) -> Tensor:
    if type(block) is ResPostRelPosBlock:
        return block.drop_path2(block.norm2(feed_forward(block.mlp, sequence)))
    after = feed_forward(block.mlp, normalise(block.norm2, sequence))
    return block.drop_path2(scaled(block.gamma_2, after) if type(block) is BeitBlock else block.ls2(after))

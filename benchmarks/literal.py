"""The baselines, written out plainly: the published form of VPT-deep, full fine-tuning, a linear probe, LoRA, SAM.

Those of a ViT are built from a `PromptedModel`, so that they have its weights, prompts and head.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos, window_partition, window_unpartition
from torch import Tensor, nn

from vpt.heads import ClassifyHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts


class Literal(nn.Module):
    """VPT-deep as published (Jia et al., ECCV 2022; their code): concatenate, run timm's block, replace, run the next.

    Args:
        model: whose parts are taken.
        fused: timm's attention through torch's fused kernel; else softmax(q k^T) v is written out, as in the authors'
            code; None: as timm has it.
        checkpointing: what is inside a block is computed again in the backward pass.
        frozen: False leaves `requires_grad` on the encoder's weights, a common oversight: their gradients are computed
            and nobody uses them.
    """

    def __init__(
        self, model: PromptedModel, *, fused: bool | None = None, checkpointing: bool = False, frozen: bool = True
    ):
        super().__init__()
        assert isinstance(model.prompts, DeepPrompts)
        assert isinstance(model.head, ClassifyHead)
        self.vit: Any = model.backbone.vit
        self.vit.requires_grad_(not frozen)
        self.prompts = model.prompts.table.tokens  # (blocks, P, C)
        self.head = model.head.output
        self.first_token = model.head.first_token
        self.checkpointing = checkpointing
        for block in self.vit.blocks:
            block.attn.fused_attn = block.attn.fused_attn if fused is None else fused

    def forward(self, images: Tensor) -> Tensor:
        vit, batch, count = self.vit, len(images), self.prompts.shape[1]
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for i, block in enumerate(vit.blocks):
            rest = tokens[:, 1:] if i == 0 else tokens[:, 1 + count :]
            tokens = torch.cat([tokens[:, :1], self.prompts[i].expand(batch, -1, -1), rest], dim=1)
            if self.checkpointing:
                tokens = torch.utils.checkpoint.checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        tokens = vit.norm(tokens)
        return self.head(tokens[:, 0] if self.first_token else tokens[:, 1 + count :].mean(1))


class Plain(nn.Module):
    """timm's encoder without prompts, and a linear head on CLS.

    tuned: "full" trains all of it, "probe" only the head, whose features then come without a graph.
    """

    def __init__(self, model: PromptedModel, tuned: str):
        super().__init__()
        assert isinstance(model.head, ClassifyHead)
        self.vit: Any = model.backbone.vit
        self.vit.requires_grad_(tuned == "full")
        self.head = model.head.output
        self.recorded = tuned != "probe"

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.recorded and torch.is_grad_enabled()):
            tokens = self.vit.forward_features(images)
        return self.head(tokens[:, 0])


def with_lora(model: PromptedModel, rank: int = 8) -> Plain:
    """peft's LoRA in qkv and proj of every block."""
    from peft import LoraConfig, inject_adapter_in_model

    plain = Plain(model, "lora")
    targets = [f"blocks.{i}.attn.{name}" for i in range(model.backbone.spec.depth) for name in ("qkv", "proj")]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), plain.vit)
    return plain


def sam_with_prompts(encoder: Any, prompts: Tensor, images: Tensor) -> Tensor:
    """segment-anything's `ImageEncoderViT.forward`, its blocks with prompts (blocks, P, C) added -> (B, neck, h, w).

    Everything is theirs but two lines in the attention: its relative positions leave no room to concatenate prompts to
    the tokens, so they are keys and values of every window.
    """
    tokens = encoder.patch_embed(images) + encoder.pos_embed
    for block, own in zip(encoder.blocks, prompts, strict=True):
        x, size = block.norm1(tokens), tokens.shape[1:3]
        if block.window_size > 0:
            x, padded = window_partition(x, block.window_size)
        x = _sam_attention(block.attn, x, block.norm1(own))
        if block.window_size > 0:
            x = window_unpartition(x, block.window_size, padded, size)
        tokens = tokens + x
        tokens = tokens + block.mlp(block.norm2(tokens))
    return encoder.neck(tokens.permute(0, 3, 1, 2))


def _sam_attention(attention: Any, x: Tensor, prompts: Tensor) -> Tensor:
    """segment-anything's `Attention.forward` over windows (N, H, W, C), beside normed prompts (P, C)."""
    count, height, width, _ = x.shape
    heads, size = attention.num_heads, (height, width)
    qkv = attention.qkv(x).reshape(count, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, count * heads, height * width, -1).unbind(0)
    scores = (q * attention.scale) @ k.transpose(-2, -1)
    if attention.use_rel_pos:
        scores = add_decomposed_rel_pos(scores, q, attention.rel_pos_h, attention.rel_pos_w, size, size)
    _, keys, values = attention.qkv(prompts).reshape(len(prompts), 3, heads, -1).permute(1, 2, 0, 3)
    scores = torch.cat([scores, (q * attention.scale) @ keys.repeat(count, 1, 1).transpose(-2, -1)], dim=-1)
    mixed = scores.softmax(dim=-1) @ torch.cat([v, values.repeat(count, 1, 1)], dim=1)
    mixed = mixed.view(count, heads, height, width, -1).permute(0, 2, 3, 1, 4)
    return attention.proj(mixed.reshape(count, height, width, -1))

"""The baselines, written out plainly: the published form of VPT-deep, full fine-tuning, a linear probe, LoRA.

All are built from one `PromptedModel`, so that they have its weights, prompts and head.
"""

from __future__ import annotations

from typing import Any

import torch
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

"""Adapter over the vision encoders of language models: Qwen3-VL's and its successors', DeepSeek-V4's.

Both are plain ViTs of one width with rotary positions and without a CLS token, whose projection into the language model
is left out. Prompts are keys and values that are not turned, as in `EvaBackbone`.
"""

from __future__ import annotations

from typing import Any

from timm.layers import AttentionRope
from timm.models.deepseek_vit import DeepseekVitBlock
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from vpt.backbones.base import Level, uniform_blocks
from vpt.backbones.eva import EvaBackbone
from vpt.backbones.timm_model import Layout
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError

PROJECTIONS = ("merger", "aligner")  # of patches into a language model, as the two call it


class TowerBackbone(EvaBackbone):
    """timm's `Qwen3VitClassifier` and `DeepseekVitClassifier`: an encoder, the mean of its patches, a norm.

    Without prompts the patches equal those of timm's `forward_features` bit for bit, and `pooled` what its classifier
    reads (except in bfloat16 on a CPU, see `VitBackbone`).
    """

    def take(self, model: Any) -> Layout:
        encoder = model.encoder.eval()
        if not hasattr(encoder, "norm"):
            encoder.norm = nn.Identity()
        encoder.fc_norm = model.norm
        self.vit = encoder
        (height, width), (rows, columns) = self.size_of(model), self.patch_of(model)
        grid = (height // rows, width // columns)
        heads = self.heads_of(encoder.blocks[0])
        blocks = uniform_blocks(len(encoder.blocks), encoder.embed_dim, heads, grid)
        return Layout(blocks, Level(encoder.embed_dim, grid), finishes_prompts=True)

    def takes(self, size: tuple[int, int]) -> bool:
        return size == self.spec.image_size

    def embed(self, images: Tensor) -> Tokens:
        encoder: Any = self.vit
        sequence, _ = encoder._pos_embed(encoder.patch_embed(images))
        return Tokens.parts_of(sequence, 0, 0, self.spec.finished.grid)

    def rope(self, i: int, grid: tuple[int, int] | None = None) -> Tensor:
        rope: Any = self.vit.rope
        return rope.get_embed(shape=list(grid or self.spec.finished.grid))

    def pool(self, sequence: Tensor) -> Tensor:
        return sequence.mean(1)

    @staticmethod
    def size_of(model: Any) -> tuple[int, int]:
        return EvaBackbone.size_of(model.encoder)

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        return EvaBackbone.patch_of(model.encoder)

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        model.encoder.patch_embed.set_input_size(img_size=image_size)  # positions follow the grid at every pass

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        encoder = model.encoder
        if any(getattr(encoder, part, None) is not None for part in PROJECTIONS):
            raise VptError(
                f"backbone {name}: {type(model).__name__} with its projection into a language model is not supported, "
                f"since patches are merged there; choose the name without _merge or _align"
            )
        odd = {type(block).__name__ for block in encoder.blocks if type(block) not in (EvaBlock, DeepseekVitBlock)}
        odd |= {type(block.attn).__name__ for block in encoder.blocks if type(block.attn) is not AttentionRope}
        if odd:
            raise VptError(
                f"backbone {name}: {type(model).__name__} with {', '.join(sorted(odd))} is not supported; choose one "
                "of timm's own, for example qwen3_vit_88m"
            )

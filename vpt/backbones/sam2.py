"""What stands on SAM 2's image encoder when it segments one image: the pyramid and the mask decoder, without memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from vpt.backbones.hieradet import HieraDetBackbone
from vpt.backbones.sam import SamDecoder

STEPS = 4  # stages of the encoder, each of half the resolution of the one before


class Pyramid(nn.Module):
    """The grids after the four stages -> the image's embedding, and two finer grids for the decoder's upscaling.

    Ravi et al., SAM 2, 2024 (appendix, image encoder): the last two stages are summed; the first two are projected
    only. To the embedding is added what SAM 2 has learned to say that nothing is remembered.

    Args:
        levels: number of the last block of each stage; widths: of what leaves them; width: of the embedding.
    """

    def __init__(self, levels: Sequence[int], widths: Sequence[int], width: int):
        super().__init__()
        self.levels = tuple(levels)
        self.convs = nn.ModuleList(nn.Conv2d(own, width, 1) for own in reversed(widths))
        self.no_memory = nn.Parameter(0.02 * torch.randn(1, 1, width))

    def forward(self, grids: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Four grids (B, C_k, H / 2^k, W / 2^k) -> (B, C, H / 4, W / 4); (B, C, H / 2, W / 2) and (B, C, H, W)."""
        coarsest, coarse, fine, finest = (conv(grid) for conv, grid in zip(self.convs, reversed(grids), strict=True))
        embedding = coarse + F.interpolate(coarsest.float(), scale_factor=2.0, mode="nearest")
        return embedding + self.no_memory.view(1, -1, 1, 1), (fine, finest)


class Sam2MaskDecoder(MaskDecoder):
    """`segment_anything`'s, with what SAM 2's has besides.

    `obj_score_token` goes before all other tokens, and its network says whether there is an object at all; `conv_s1`
    and `conv_s0` project the two finer grids, which are added while the embedding is upscaled.
    """

    def __init__(self, width: int, transformer: nn.Module):
        super().__init__(transformer_dim=width, transformer=transformer)
        self.obj_score_token = nn.Embedding(1, width)
        self.pred_obj_score_head = MLP(width, width, 1, 3)
        self.conv_s0 = nn.Conv2d(width, width // 8, 1)
        self.conv_s1 = nn.Conv2d(width, width // 4, 1)


class Sam2Backbone(HieraDetBackbone):
    """SAM 2's image encoder with the decoder of its checkpoint.

    Args:
        model: timm's `HieraDet`; decoder: for `SamDecoderHead`, with its pyramid; None where the checkpoint has none;
        described: see `TimmBackbone`.
    """

    def __init__(self, model: Any, decoder: SamDecoder | None, **described: Any):
        super().__init__(model, **described)
        self._decoder = (decoder,)  # in a tuple, so that it is no part of the encoder: heads copy what they need
        if decoder is not None:
            height, width = self.spec.finished.grid
            decoder.resize(self.spec.image_size, (2 * height, 2 * width))

    @property
    def decoder(self) -> SamDecoder | None:
        return self._decoder[0]


def ends_of_stages(model: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """In timm's `HieraDet`: the last block of each stage, and the width of what leaves it."""
    ends = [i - 1 for i, block in enumerate(model.blocks) if block.q_stride is not None]
    levels = (*ends, len(model.blocks) - 1)
    return levels, tuple(model.blocks[i].dim_out for i in levels)

"""Small SAM 2s, whose every tensor is random, their files as the official ones are, and their answer written out."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hieradets import make_timm
from torch import Tensor

from vpt.backbones.sam import SamDecoder
from vpt.backbones.sam2 import Sam2Backbone
from vpt.backbones.sam2_models import Sam2

WIDTH, SIZE = 32, (64, 32)  # four stages of 16x8, 8x4, 4x2 and 2x1 places
STAGES: dict[str, Any] = {"stages": (1, 2, 1, 2), "q_pool": 3, "global_att_blocks": (5,), "window_spec": (4, 6, 4, 2)}
SHAPES: dict[str, tuple[int, ...]] = {  # a few of what remembers: nothing of it is read
    "maskmem_tpos_enc": (7, 1, 1, 8),
    "no_mem_pos_enc": (1, 1, WIDTH),
    "no_obj_ptr": (1, WIDTH),
    "no_obj_embed_spatial": (1, 8),
    "mask_downsample.weight": (1, 1, 4, 4),
    "obj_ptr_proj.layers.0.weight": (WIDTH, WIDTH),
    "obj_ptr_tpos_proj.weight": (8, WIDTH),
    "memory_attention.layers.0.linear1.weight": (16, WIDTH),
    "memory_encoder.fuser.layers.0.gamma": (WIDTH,),
}


def make_sam2() -> Sam2:
    """No zero bias and no unit gain hides a mistake."""
    hiera = make_timm(SIZE, **STAGES)
    torch.manual_seed(0)
    sam = Sam2(hiera, width=WIDTH, mlp=48, heads=2)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if not name.startswith("image_encoder."):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return sam.eval().requires_grad_(False)


def wrap_sam2(sam: Sam2, trained: bool = True) -> Sam2Backbone:
    """The adapter over a copy of it, frozen."""
    own = copy.deepcopy(sam)
    decoder = SamDecoder(own.prompt_encoder, own.mask_decoder, trained=trained, pyramid=own.pyramid)
    backbone = Sam2Backbone(own.image_encoder, decoder, name="tiny", mean=(0.5,) * 3, std=(0.5,) * 3, sha256="")
    return backbone.requires_grad_(False)


def official(sam: Sam2) -> dict[str, Tensor]:
    """Its tensors under the names of SAM 2's own files, with some of what remembers."""
    torch.manual_seed(1)
    found = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    for key, tensor in sam.state_dict().items():
        if key.startswith("image_encoder."):
            if ".head." not in key:
                trunk = re.sub(r"\.mlp\.fc([12])\.", lambda m: f".mlp.layers.{int(m[1]) - 1}.", key)
                found[trunk.replace("image_encoder.", "image_encoder.trunk.", 1)] = tensor
        elif key == "pyramid.no_memory":
            found["no_mem_embed"] = tensor
        elif key.startswith("pyramid."):
            found[re.sub(r"pyramid\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv.", key)] = tensor
        else:
            found["sam_" + re.sub(r"\.mlp\.lin([12])\.", lambda m: f".mlp.layers.{int(m[1]) - 1}.", key)] = tensor
    return found


def stages_of(sam: Sam2, images: Tensor) -> list[Tensor]:
    """timm's grids (B, C, H, W) after the four stages."""
    return sam.image_encoder.forward_intermediates(images, indices=4, intermediates_only=True)


def masks_without_prompts(sam: Sam2, stages: Sequence[Tensor], asked: Tensor) -> Tensor:
    """What SAM 2 gives for its first mask token, asked with tokens (N, C) -> logits (B, H, W) of the finest grid."""
    state = official(sam)

    def lateral(number: int, grid: Tensor) -> Tensor:
        name = f"image_encoder.neck.convs.{3 - number}.conv"
        return (
            torch.einsum("oi,bihw->bohw", state[f"{name}.weight"][..., 0, 0], grid)
            + state[f"{name}.bias"][:, None, None]
        )

    finest, fine, coarse, coarsest = (lateral(k, grid) for k, grid in enumerate(stages))
    embedding = coarse + coarsest.repeat_interleave(2, -1).repeat_interleave(2, -2)
    embedding = embedding + state["no_mem_embed"].view(1, -1, 1, 1)
    decoder, prompt_encoder = sam.mask_decoder, sam.prompt_encoder
    own = [state[f"sam_mask_decoder.{name}.weight"] for name in ("obj_score_token", "iou_token", "mask_tokens")]
    tokens = torch.cat([*own, asked]).expand(len(embedding), -1, -1)
    positions = prompt_encoder.pe_layer(embedding.shape[-2:])[None].expand_as(embedding)
    dense = prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    tokens, source = decoder.transformer(embedding + dense, positions, tokens)
    source = source.transpose(1, 2).reshape(embedding.shape)
    first, norm, _, second, _ = decoder.output_upscaling
    upscaled = F.gelu(norm(first(source) + decoder.conv_s1(fine)))
    upscaled = F.gelu(second(upscaled) + decoder.conv_s0(finest))
    return torch.einsum("bc,bchw->bhw", decoder.output_hypernetworks_mlps[0](tokens[:, 2]), upscaled)

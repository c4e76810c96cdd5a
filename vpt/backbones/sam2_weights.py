"""SAM 2 as `transformers` saves it, in the names of the official files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vpt.backbones.renames import Renames, renamed

MARK = re.compile(r"^(?:sam2\.)?(?:vision_encoder\.)?(?:backbone\.)?patch_embed\.projection\.")
TRUNK = r"^image_encoder\.trunk\."
MLPS = r"(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
HUGGING_FACE: Renames = (  # the encoder is told first, so that the general rules below it meet what is left
    (r"^sam2\.", ""),
    (r"^(?:vision_encoder\.)?backbone\.", "image_encoder.trunk."),
    (r"^(pos_embed$|pos_embed_window$|patch_embed\.|blocks\.)", r"image_encoder.trunk.\1"),  # the trunk saved alone
    (r"^(?:vision_encoder\.)?neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (rf"{TRUNK}patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    # one table of frequencies, saved under the name of either of its two users or of both
    (r"^(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
     "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"^(sam_prompt_encoder)\.mask_embed\.conv1\.", r"\1.mask_downscaling.0."),
    (r"^(sam_prompt_encoder)\.mask_embed\.layer_norm1\.", r"\1.mask_downscaling.1."),
    (r"^(sam_prompt_encoder)\.mask_embed\.conv2\.", r"\1.mask_downscaling.3."),
    (r"^(sam_prompt_encoder)\.mask_embed\.layer_norm2\.", r"\1.mask_downscaling.4."),
    (r"^(sam_prompt_encoder)\.mask_embed\.conv3\.", r"\1.mask_downscaling.6."),
    (r"^(sam_mask_decoder)\.upscale_conv1\.", r"\1.output_upscaling.0."),
    (r"^(sam_mask_decoder)\.upscale_layer_norm\.", r"\1.output_upscaling.1."),
    (r"^(sam_mask_decoder)\.upscale_conv2\.", r"\1.output_upscaling.3."),
    # MLPs of three layers: the middle one first, because its old name is the new name of the first
    (rf"^(sam_mask_decoder\.{MLPS})\.layers\.0\.", r"\1.layers.1."),
    (rf"^(sam_mask_decoder\.{MLPS})\.proj_in\.", r"\1.layers.0."),
    (rf"^(sam_mask_decoder\.{MLPS})\.proj_out\.", r"\1.layers.2."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"^(sam_mask_decoder\.transformer\..*)\.o_proj\.", r"\1.out_proj."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
)  # fmt: skip
MEMORY = re.compile(  # what serves to remember other images of a video
    r"^(?:(?:memory_attention|memory_encoder|mask_downsample|object_pointer_proj"
    r"|temporal_positional_encoding_projection_layer)\.|(?:memory_temporal_positional_encoding"
    r"|no_memory_positional_encoding|no_object_pointer|occlusion_spatial_embedding_parameter)$)"
)
POINTS = "prompt_encoder.point_embed.weight"  # of four kinds, in one table
NECK = "image_encoder.neck."


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `Sam2Model`, `Sam2VideoModel`, `Sam2VisionModel` or `Sam2HieraDetModel`; of anyone else as they are.

    Left out is what remembers, and the pyramid of an encoder that was saved without the decoder behind it. A table that
    is there twice with other values keeps its second name, for `require_fit` to name.
    """
    if not any(MARK.match(key) for key in state):
        return dict(state)
    found: dict[str, Tensor] = {}
    for key, value in _points_apart(state).items():
        if MEMORY.match(key.removeprefix("sam2.")):
            continue
        name = renamed(key, HUGGING_FACE)
        found[key if name in found and not _alike(found[name], value) else name] = value
    whole = any(key.startswith("sam_mask_decoder.") for key in found)
    return {key: value for key, value in found.items() if whole or not key.startswith(NECK)}


def _points_apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The kinds of points, each a table of its own."""
    found = dict(state)
    for prefix in ("", "sam2."):
        if (table := found.pop(prefix + POINTS, None)) is not None:
            found |= {f"prompt_encoder.point_embeddings.{k}.weight": row[None] for k, row in enumerate(table)}
    return found


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())

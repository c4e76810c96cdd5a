"""Segment Anything checkpoints in the layouts that people have, read into the official one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vpt.backbones.renames import Renames, renamed, under_names
from vpt.backbones.weights import read_state
from vpt.errors import VptError
from vpt.words import some_of

# What people wrap a SAM in before they save it.
WRAPPERS: Renames = ((r"^(?:(?:module|model|sam|sam_model|net)\.)+", ""),)

# An image encoder saved alone; timm's has the linear layers of its MLPs renamed.
ENCODER_ALONE: Renames = (
    (r"^(pos_embed$|patch_embed\.|blocks\.|neck\.)", r"image_encoder.\1"),
    (r"\.mlp\.fc([12])\.", r".mlp.lin\1."),
)

# SamModel of transformers. The encoder is told first, so that the general rules below it meet what is left.
HUGGING_FACE: Renames = (
    (r"^vision_encoder\.", "image_encoder."),
    (r"^image_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"^image_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^image_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^image_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^image_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    # one table of frequencies, saved under the name of either of its two users or of both
    (r"^(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    # MLPs of three layers: the middle one first, because its old name is the new name of the first
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.", r"\1layers.1."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)proj_in\.", r"\1layers.0."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)proj_out\.", r"\1layers.2."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
)  # fmt: skip

# A layout other than the official one is known by a key that no other has; the first that matches counts.
LAYOUTS: tuple[tuple[str, Renames], ...] = (
    (r"^vision_encoder\.patch_embed\.projection\.", HUGGING_FACE),
    (r"^blocks\.\d+\.mlp\.(?:fc1|lin1)\.", ENCODER_ALONE),  # timm's, segment-anything's
)

CONSTANTS = ("pixel_mean", "pixel_std")  # of the images, not weights: some versions save them
ADAPTERS = re.compile(r"^image_encoder\.blocks\.\d+\.\w*Adapter\.")  # SAM-Med2D, Medical SAM Adapter
PATCHES = "image_encoder.patch_embed.proj.weight"
POSITIONS = "image_encoder.pos_embed"
NECK = "image_encoder.neck.0.weight"


@dataclass(frozen=True)
class SamState:
    """A checkpoint in the layout of `segment_anything` 1.0.

    tensors: official key -> tensor; keys that no Segment Anything model has are kept, for `require_fit` to name;
    skipped: keys of adapters, left out because the official model has no place for them, sorted; has_decoder: False
    when the file holds an image encoder only.
    """

    tensors: dict[str, Tensor]
    skipped: tuple[str, ...]
    has_decoder: bool


def read_sam_state(path: str | Path, name: str) -> SamState:
    """Read a Segment Anything checkpoint; `name` is the model that it is for, to be named in messages.

    Official files, MedSAM, SAM-Med2D, timm's encoders and `SamModel` of transformers, also nested in a training's
    checkpoint or wrapped by DistributedDataParallel. The position embedding keeps the size it was saved in.

    Raises:
        VptError: no such file, no weights, no Segment Anything checkpoint, or a 3D one.
    """
    found = under_names(read_state(path).items(), lambda key: renamed(key, WRAPPERS), path)
    renames = _renames_of(found)
    tensors = under_names(found.items(), lambda key: renamed(key, renames), path)
    _require_encoder(tensors, found, path, name)
    _require_2d(tensors, path, name)
    _require_square(tensors[POSITIONS], path, name)
    skipped = tuple(sorted(key for key in tensors if ADAPTERS.match(key)))
    return SamState(
        tensors={key: tensor for key, tensor in tensors.items() if key not in (*skipped, *CONSTANTS)},
        skipped=skipped,
        has_decoder=any(key.startswith("mask_decoder.") for key in tensors),
    )


def _renames_of(state: dict[str, Tensor]) -> Renames:
    """Of the layout that a key of the state is a mark of."""
    return next((renames for mark, renames in LAYOUTS if any(re.match(mark, key) for key in state)), ())


def _require_encoder(tensors: dict[str, Tensor], found: dict[str, Tensor], path: str | Path, name: str) -> None:
    if not {PATCHES, POSITIONS, NECK} <= tensors.keys():
        raise VptError(
            f"{path}: no Segment Anything checkpoint for {name}: found {some_of(found)}; expected {PATCHES}, "
            f"{POSITIONS}, {NECK} and so on, or the same in the names of timm or transformers; give a file such as "
            "sam_vit_b_01ec64.pth"
        )


def _require_2d(tensors: dict[str, Tensor], path: str | Path, name: str) -> None:
    for key in (PATCHES, POSITIONS):
        if tensors[key].ndim == 5:
            raise VptError(
                f"{path}: a 3D checkpoint, as of SAM-Med3D: {key} is {tuple(tensors[key].shape)}, expected four "
                f"dimensions; {name} reads slices, give a 2D checkpoint such as sam_vit_b_01ec64.pth"
            )


def _require_square(positions: Tensor, path: str | Path, name: str) -> None:
    """The model is built by the size of its positions, so what is none would be taken for a size."""
    if positions.ndim != 4 or positions.shape[1] != positions.shape[2]:
        raise VptError(
            f"{path}: does not fit {name}: {POSITIONS} is {tuple(positions.shape)}, expected (1, N, N, C), a square of "
            "N x N patches; choose the backbone that these weights belong to"
        )

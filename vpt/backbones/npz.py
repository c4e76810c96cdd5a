"""The `.npz` files of the first ViTs (Dosovitskiy et al., 2021; AugReg), in timm's names and shapes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from vpt.backbones.hugging_face import joined
from vpt.backbones.renames import Renames, renamed, under_names
from vpt.errors import VptError

MARK = re.compile(r"(?:^|/)embedding/kernel$")
BEFORE = re.compile(r"^(?:params/)?(?:img/)?")
RENAMES: Renames = (
    (r"^cls$", "cls_token"),
    (r"^(?:Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"\.LayerNorm_0/", ".norm1."),
    (r"\.LayerNorm_[12]/", ".norm2."),
    (r"\.MultiHeadDotProductAttention_\d/(q|k|v)\w+/", r".attn.\1."),
    (r"\.MultiHeadDotProductAttention_\d/out/", ".attn.proj."),
    (r"\.MlpBlock_\d/Dense_0/", ".mlp.fc1."),
    (r"\.MlpBlock_\d/Dense_1/", ".mlp.fc2."),
    (r"^(head|pre_logits)/", r"\1."),
    (r"(?:kernel|scale)$", "weight"),
)


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, as they are called there. Nothing pickled is read.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: no such file.
    """
    with np.load(path, allow_pickle=False) as content:
        return {name: torch.from_numpy(np.ascontiguousarray(content[name])) for name in content.files}


def from_npz(state: dict[str, Tensor], vit: Any, path: Path) -> dict[str, Tensor]:
    """Those of a ViT in timm's names; keys that no ViT has are kept, for `require_fit` to name; others' as they are.

    Raises:
        VptError: two tensors of one name; other heads than those of timm's `vit`.
    """
    if not any(MARK.search(key) for key in state):
        return state
    named = under_names(state.items(), lambda key: renamed(BEFORE.sub("", key), RENAMES), path)
    _require_heads(named, vit, path)
    return _resized(
        joined({key: _turned(key, value) for key, value in named.items()}, biases_apart=False, keys_may_lack=False), vit
    )


def _require_heads(state: dict[str, Tensor], vit: Any, path: Path) -> None:
    """Heads have an axis of their own there, which is lost as soon as it is flattened."""
    kernels = [value for key, value in state.items() if key.endswith(".attn.q.weight") and value.ndim == 3]
    own = getattr(getattr(vit.blocks[0], "attn", None), "num_heads", None)
    if own is not None and (other := {kernel.shape[1] for kernel in kernels} - {own}):
        raise VptError(
            f"{path}: trained with {min(other)} heads, and the encoder has {own}; choose the backbone that these "
            "weights belong to"
        )


def _resized(state: dict[str, Tensor], vit: Any) -> dict[str, Tensor]:
    """Positions of another grid of patches linearly, as those files' own authors and timm's reader of them do."""
    found, own = state.get("pos_embed"), getattr(vit, "pos_embed", None)
    grid = getattr(getattr(vit, "patch_embed", None), "grid_size", None)
    if found is None or own is None or grid is None or found.ndim != 3 or found.shape == own.shape:
        return state
    prefix = own.shape[1] - math.prod(grid)
    if math.isqrt(max(0, found.shape[1] - prefix)) ** 2 != found.shape[1] - prefix:  # for `require_fit` to name
        return state
    resized = resample_abs_pos_embed(
        found, list(grid), num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )
    return state | {"pos_embed": resized}


def _turned(key: str, value: Tensor) -> Tensor:
    """Kernels hold the output last; those of attention have an axis for the heads. Of other axes it stays as it is."""
    if key == "patch_embed.proj.weight" and value.ndim == 4:
        return value.permute(3, 2, 0, 1).contiguous()
    if ".attn.proj.weight" in key and value.ndim == 3:
        return value.reshape(-1, value.shape[-1]).T.contiguous()
    if re.search(r"\.attn\.[qkv]\.weight$", key) and value.ndim == 3:
        return value.flatten(1).T.contiguous()
    if re.search(r"\.attn\.[qkv]\.bias$", key):
        return value.flatten()
    return value.T.contiguous() if value.ndim == 2 and key.endswith(".weight") else value

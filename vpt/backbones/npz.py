"""The `.npz` files of the first ViTs (Dosovitskiy et al., 2021; AugReg), in timm's names and shapes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.backbones.hugging_face import joined
from vpt.backbones.renames import Renames, renamed

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


def from_npz(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a ViT in timm's names; keys that no ViT has are kept, for `require_fit` to name; others' as they are."""
    if not any(MARK.search(key) for key in state):
        return state
    named = {renamed(BEFORE.sub("", key), RENAMES): value for key, value in state.items()}
    return joined({key: _turned(key, value) for key, value in named.items()}, biases_apart=False)


def _turned(key: str, value: Tensor) -> Tensor:
    """Kernels hold the output last; those of attention have an axis for the heads."""
    if key == "patch_embed.proj.weight":
        return value.permute(3, 2, 0, 1).contiguous()
    if ".attn.proj.weight" in key:
        return value.reshape(-1, value.shape[-1]).T.contiguous()
    if re.search(r"\.attn\.[qkv]\.weight$", key):
        return value.reshape(len(value), -1).T.contiguous()
    if re.search(r"\.attn\.[qkv]\.bias$", key):
        return value.flatten()
    return value.T.contiguous() if value.ndim == 2 and key.endswith(".weight") else value

"""Weights from a file: read, fit, refuse, identify. Nothing is ever half-loaded in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from vpt.errors import VptError

CLASSIFIERS = ("head", "head_dist", "pre_logits", "fc")  # of the pretraining's own task: not part of an encoder


def sha256_of(module: nn.Module) -> str:
    """Identity of a module's weights: SHA-256 over name, shape, dtype and bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of a `.safetensors`, `.pth`, `.pt` or `.bin` file; nested (`model`, `state_dict`) and DDP layouts too.

    Pickled files are read with `weights_only=True` only.

    Raises:
        VptError: no such file, or not a file of weights.
    """
    path = Path(path)
    if not path.is_file():
        raise VptError(
            f"{path}: no such file; give the path of the backbone's weights (.safetensors, .pth, .pt or .bin)"
        )
    try:
        state = load_state_dict(str(path), use_ema=False)
    except Exception as e:  # what is no checkpoint makes its readers raise almost any kind, KeyError included
        reason = f"{type(e).__name__}: {e}".splitlines()[0].rstrip(": ")
        raise VptError(
            f"{path}: cannot be read as weights ({reason}); give a state dict as .safetensors or a .pth of tensors"
        ) from e
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise VptError(f"{path}: holds no tensors; give a state dict as .safetensors or .pth")
    return tensors


def load_weights(vit: VisionTransformer, path: str | Path, name: str) -> None:
    """Load a checkpoint in any layout that timm converts; position embeddings are resized, a classifier is left out.

    Raises:
        VptError: keys that are missing, left over or misshapen, each listed.
    """
    state = read_state(path)
    try:
        state = checkpoint_filter_fn(state, vit)
    except (KeyError, RuntimeError, AssertionError, IndexError) as error:
        raise VptError(
            f"{path}: does not fit {name} ({error!r}); choose the backbone that these weights belong to"
        ) from error
    own = vit.state_dict()
    state = {key: value for key, value in state.items() if key in own or key.partition(".")[0] not in CLASSIFIERS}
    require_fit(own, state, path, name)
    vit.load_state_dict(state)


def require_fit(wanted: dict[str, Tensor], found: dict[str, Tensor], path: str | Path, name: str) -> None:
    """Raise VptError, with every key listed, unless names and shapes are exactly those wanted."""
    problems = {
        "missing keys": wanted.keys() - found.keys(),
        "left-over keys": found.keys() - wanted.keys(),
        "misshapen keys": {
            f"{key} (found {tuple(found[key].shape)}, expected {tuple(wanted[key].shape)})"
            for key in wanted.keys() & found.keys()
            if found[key].shape != wanted[key].shape
        },
    }
    if any(problems.values()):
        said = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys)
        raise VptError(f"{path}: does not fit {name}: {said}; choose the backbone that these weights belong to")


def _some(names: Iterable[str], most: int = 6) -> str:
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Weights from a file: read, fit, refuse, identify. Nothing is ever half-loaded in silence."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import (
    deepseek_vit,
    eva,
    hiera,
    hieradet_sam2,
    qwen3_vit,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    vision_transformer,
)
from torch import Tensor, nn

from vpt.backbones.hugging_face import timms_names
from vpt.backbones.npz import from_npz, read_npz
from vpt.backbones.sam2_weights import official_names
from vpt.errors import VptError
from vpt.machine.scarce import is_out_of_memory
from vpt.tensor_files import digest_tensors
from vpt.words import some_of

RANDOM = "random"  # in place of a file: the control that no pretraining has touched
CLASSIFIERS = ("head", "head_dist", "pre_logits", "fc")  # of the pretraining's own task: not part of an encoder
NESTS = ("state_dict", "model", "model_state_dict", "model_state")  # where trainings nest the weights
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile
# What trainings pickle beside the weights, whole optimisers included: read as placeholders that do and hold nothing.
BESIDE = ("argparse.Namespace", "builtins.dict", "pathlib.", "numpy.", "torch.optim.", "torch.utils.data.")
BESIDE_DICT = "collections.defaultdict"
SHARDS = "model.safetensors.index.json"
SAM2_TRUNK = "image_encoder.trunk."


def sam2_trunk(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Of a whole SAM 2 its image encoder, in timm's names; it has no last norm, so timm's stays as it starts.

    Its layout is the official one or that of `transformers`.
    """
    state = official_names(state)
    if not any(key.startswith(SAM2_TRUNK) for key in state):
        return hieradet_sam2.checkpoint_filter_fn(state)
    own = {key: value for key, value in model.state_dict().items() if key.startswith("head.norm.")}
    return own | hieradet_sam2.checkpoint_filter_fn(state, prefix=SAM2_TRUNK)


FILTERS: dict[type[nn.Module], Any] = {  # timm's, from the layouts of a model's authors to its own
    deepseek_vit.DeepseekVitClassifier: deepseek_vit.checkpoint_filter_fn_classifier,
    eva.Eva: eva.checkpoint_filter_fn,
    hiera.Hiera: hiera.checkpoint_filter_fn,
    hieradet_sam2.HieraDet: sam2_trunk,
    qwen3_vit.Qwen3VitClassifier: qwen3_vit.checkpoint_filter_fn_classifier,
    swin_transformer.SwinTransformer: swin_transformer.checkpoint_filter_fn,
    swin_transformer_v2.SwinTransformerV2: swin_transformer_v2.checkpoint_filter_fn,
    swin_transformer_v2_cr.SwinTransformerV2Cr: swin_transformer_v2_cr.checkpoint_filter_fn,
}


def sha256_of(module: nn.Module) -> str:
    """Identity of a module's weights: SHA-256 over name, shape, dtype and bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    digest_tensors(digest, module.state_dict())
    return digest.hexdigest()


def weights_file(path: str | Path) -> Path:
    """The file of weights that a path names: of a folder, as `transformers` and the hub save it, the one within it.

    Raises:
        VptError: a folder without one.
    """
    path = Path(path)
    if not os.path.isdir(path):
        return path
    for pattern in ("model.safetensors", SHARDS, "pytorch_model.bin", "*.safetensors", "*.pth", "*.pt", "*.bin"):
        if found := sorted(path.glob(pattern)):
            return found[0]
    raise VptError(f"{path}: the folder holds no weights; put model.safetensors into it, or give a file")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file; nested (`model`, `state_dict`) and DDP too.

    Of a folder that of its file; of an index of several files that of all of them. Pickled files are read with
    `weights_only=True` only.

    Raises:
        VptError: no such file, not a file of weights, too little memory.
    """
    path = weights_file(path)
    if not os.path.isfile(path):
        raise VptError(
            f"{path}: no such file; give the path of the backbone's weights (.safetensors, .pth, .pt, .bin or .npz)"
        )
    try:
        content = _content(path)
    except Exception as e:  # what is no checkpoint makes its readers raise almost any kind, KeyError included
        if is_out_of_memory(e):
            raise VptError(f"{path}: too little memory for these weights; close other programs") from e
        reason = f"{type(e).__name__}: {e}".splitlines()[0].rstrip(": ")
        raise VptError(
            f"{path}: cannot be read as weights ({reason}); give a state dict as .safetensors or a .pth of tensors"
        ) from e
    state = _innermost(content)
    tensors = {
        WRAPPERS.sub("", key): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise VptError(f"{path}: holds no tensors; give a state dict as .safetensors or .pth")
    return tensors


class Placeholder:
    """Stands for an object that a training pickled beside the weights; takes any arguments and state, keeps none."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _content(path: Path) -> Any:
    if path.name.endswith(".index.json"):
        named = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        return {key: value for name in sorted(named) for key, value in load_file(path.parent / Path(name).name).items()}
    if path.suffix == ".safetensors":
        return load_file(path)
    return read_npz(path) if path.suffix == ".npz" else _unpickled(path)


def _plain_dict(*args: Any) -> dict[Any, Any]:
    return {}


def _unpickled(path: Path) -> Any:
    """What `torch.save` wrote, of tensors, plain values and placeholders; any other object is refused, none is run."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no file of torch.save as written since torch 1.6: the reader below judges it
        foreign = []
    if strange := [name for name in foreign if not name.startswith((*BESIDE, BESIDE_DICT))]:
        raise ValueError(f"it holds more than tensors: {some_of(strange)}")
    stands_in = {name: _plain_dict if name == BESIDE_DICT else Placeholder for name in foreign}
    with torch.serialization.safe_globals([(thing, name) for name, thing in stands_in.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _innermost(content: Any) -> Mapping[Any, Any]:
    """The state dict of a checkpoint, itself or at the bottom of its nests; empty when there is none."""
    if not isinstance(content, Mapping):
        return {}
    for nest in NESTS:
        if isinstance(content.get(nest), Mapping):
            return _innermost(content[nest])
    return content


def load_weights(vit: Any, path: str | Path, name: str) -> None:
    """Load a checkpoint in any layout that timm converts, of `transformers`, or the first ViTs' own (`.npz`).

    Position embeddings are resized, a classifier is left out.

    Raises:
        VptError: keys that are missing, left over or misshapen, each listed.
    """
    path = weights_file(path)
    state = timms_names(from_npz(read_state(path)), vit, path)
    try:
        state = FILTERS.get(type(vit), vision_transformer.checkpoint_filter_fn)(state, vit)
    except (KeyError, RuntimeError, AssertionError, IndexError, AttributeError) as error:
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
        said = "; ".join(f"{kind}: {some_of(keys)}" for kind, keys in problems.items() if keys)
        raise VptError(f"{path}: does not fit {name}: {said}; choose the backbone that these weights belong to")

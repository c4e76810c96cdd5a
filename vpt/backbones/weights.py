"""Weights from a file: read, fit, refuse, identify. Nothing is ever half-loaded in silence."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
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
from vpt.backbones.renames import under_names
from vpt.backbones.sam2_weights import official_names
from vpt.errors import VptError
from vpt.files import left_in_place
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
SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PATCHES = re.compile(r"(?:^|\.)(?:patch_embed\.proj|patch_embed\.projection|visual\.conv1)\.weight$")
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
        VptError: a folder without one, or with several of which none has the usual name.
    """
    path = Path(path)
    if not os.path.isdir(path):
        return path
    usual = ("model.safetensors", SHARDS[0], "pytorch_model.bin", SHARDS[1])
    for pattern in (*usual, "*.safetensors", "*.pth", "*.pt", "*.bin", "*.npz"):
        if len(found := sorted(path.glob(pattern))) > 1:
            raise VptError(
                f"{path}: the folder holds {len(found)} files of weights, {some_of([file.name for file in found], 3)}; "
                "give the one that is meant"
            )
        if found:
            return found[0]
    raise VptError(f"{path}: the folder holds no weights; put model.safetensors into it, or give a file")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file; nested (`model`, `state_dict`) and DDP too.

    Of a folder that of its file; of an index of several files that of all of them. Pickled files are read with
    `weights_only=True` only.

    Raises:
        VptError: no such file, not a file of weights, two tensors of one name, too little memory.
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
        if instead := left_in_place(path):
            raise VptError(f"{path}: {instead}") from e
        reason = f"{type(e).__name__}: {e}".splitlines()[0].rstrip(": ")
        raise VptError(
            f"{path}: cannot be read as weights ({reason}); give a state dict as .safetensors or a .pth of tensors"
        ) from e
    state = _innermost(content)
    own = ((key, value) for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor))
    tensors = under_names(own, lambda key: WRAPPERS.sub("", key), path)
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
        parts = [_content(path.parent / Path(name).name) for name in sorted(named)]
        return {key: value for part in parts for key, value in part.items()}
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
        VptError: keys that are missing, left over or misshapen, each listed; patches of another size; numbers
            that are not finite, or whole.
    """
    path = weights_file(path)
    found = timms_names(from_npz(read_state(path), vit, path), vit, path)
    _require_square_positions(found, vit, path, name)
    _require_biases(found, vit, path, name)
    try:
        with redirect_stdout(io.StringIO()):  # timm prints what it leaves out
            state = FILTERS.get(type(vit), vision_transformer.checkpoint_filter_fn)(found, vit)
    except (KeyError, RuntimeError, AssertionError, IndexError, AttributeError) as error:
        raise VptError(
            f"{path}: does not fit {name} ({error!r}); choose the backbone that these weights belong to"
        ) from error
    own = vit.state_dict()
    state = {key: value for key, value in state.items() if key in own or key.partition(".")[0] not in CLASSIFIERS}
    require_fit(own, state, path, name)
    _require_patches(found, vit, path, name)
    require_numbers(own, state, path)
    vit.load_state_dict(state)


def _require_patches(state: Mapping[str, Tensor], vit: Any, path: Path, name: str) -> None:
    """timm would resample the kernel of patches of another size, of which the rest of the weights know nothing."""
    own = getattr(getattr(getattr(vit, "patch_embed", None), "proj", None), "weight", None)
    kernels = [value.shape[-2:] for key, value in state.items() if PATCHES.search(key) and value.ndim == 4]
    if own is None or own.ndim != 4 or not kernels or own.shape[-2:] in kernels:
        return
    found, expected = ("x".join(map(str, size)) for size in (kernels[0], own.shape[-2:]))
    raise VptError(
        f"{path}: does not fit {name}: its patches are of {found} pixels, expected {expected}; choose the backbone "
        "that these weights belong to"
    )


def _require_square_positions(state: Mapping[str, Tensor], vit: Any, path: Path, name: str) -> None:
    """timm resizes the positions of a square of patches, and of no other number of them."""
    found, own = state.get("pos_embed"), getattr(vit, "pos_embed", None)
    if found is None or own is None or found.ndim != 3 or own.ndim != 3 or found.shape == own.shape:
        return
    prefix = 0 if getattr(vit, "no_embed_class", False) else getattr(vit, "num_prefix_tokens", 0)
    patches = found.shape[1] - prefix
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise VptError(
            f"{path}: does not fit {name}: pos_embed is {tuple(found.shape)}, expected {tuple(own.shape)}, or {prefix} "
            "and those of another square of patches; choose the backbone that these weights belong to"
        )


def _require_biases(state: Mapping[str, Tensor], vit: Any, path: Path, name: str) -> None:
    """timm leaves out the official DINOv3's biases where its model has none; only those that are zero may go."""
    if "storage_tokens" not in state or not isinstance(vit, eva.Eva):
        return
    if getattr(vit.blocks[0].attn, "q_bias", None) is not None:
        return
    biases = {key: value.chunk(3) for key, value in state.items() if key.endswith(".qkv.bias")}
    if lost := [key for key, (query, _, values) in biases.items() if query.any() or values.any()]:
        raise VptError(
            f"{path}: does not fit {name}, which has no biases of queries and values: left-over keys: {some_of(lost)}; "
            "choose timm's model with qkvb in its name"
        )


def require_numbers(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise VptError where weights, whose names and shapes fit, are whole numbers instead, or not finite."""
    floating = {key: found[key] for key in wanted.keys() & found.keys() if wanted[key].is_floating_point()}
    if whole := {f"{key} ({value.dtype})" for key, value in floating.items() if not value.is_floating_point()}:
        raise VptError(
            f"{path}: holds whole numbers in place of weights, as quantisation leaves them: {some_of(whole)}; give the "
            "weights in float32, float16 or bfloat16"
        )
    if odd := _not_finite(floating.items()):
        raise VptError(f"{path}: holds weights that are not finite: {some_of(odd)}; get the file again from its source")


def _not_finite(tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
    return {key for key, value in tensors if not value.float().isfinite().all()}


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

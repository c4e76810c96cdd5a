"""From a config to a model: an encoder is loaded once for all that share it, and only for those."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from plans import plan_with
from safetensors.torch import load_file, save_file

from vpt import building
from vpt.artifact import read_artifact, save_artifact
from vpt.backbones.vit_models import MICRO_WEIGHTS
from vpt.building import build_model, load_encoder, shared_encoder
from vpt.config import Config, load_config
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import prepare_frozen
from vpt.restoring import restore_model

CPU = torch.device("cpu")
PLAN = plan_with(image_size=64)
LABELS = {0: "background", 1: "one"}


def config_of(**changes: Any) -> Config:
    return load_config({"data": {"path": "x"}, "task": "segmentation", **changes}).resolved("segmentation")


def saved(folder: Path, name: str, plan: Plan = PLAN, **changes: Any) -> Any:
    """An artifact of a model whose prompts are not at their start, read again."""
    config, path = config_of(**changes), folder / f"{name}.safetensors"
    torch.manual_seed(len(name))
    save_artifact(path, build_model(config, plan, 2), config=config, plan=plan, labels=LABELS, scores={})
    return read_artifact(path)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every encoder that is loaded from now on."""
    found: list[str] = []
    real = building.load_backbone

    def load(name: str, **options: Any) -> Any:
        found.append(name)
        return real(name, **options)

    monkeypatch.setattr(building, "load_backbone", load)
    gc.collect()
    return found


@pytest.mark.slow
def test_two_artifacts_share_one_encoder_that_is_loaded_once(tmp_path: Path, loads: list[str]) -> None:
    artifacts = [saved(tmp_path, "a"), saved(tmp_path, "bb", prompts={"method": "shallow", "count": 3})]
    loads.clear()

    first, second = (restore_model(artifact, device=CPU) for artifact in artifacts)

    assert loads == ["vit_micro"]
    assert first.backbone is second.backbone
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for model, artifact in zip((first, second), artifacts, strict=True):
            alone = restore_model(artifact)
            prepare_frozen(alone.backbone, "32-true")
            assert torch.equal(model(images), alone(images))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["weights", "trains", "type"])
def test_one_that_somebody_changed_is_nobody_elses(tmp_path: Path, loads: list[str], change: str) -> None:
    artifact = saved(tmp_path, "a")
    loads.clear()
    first = restore_model(artifact, device=CPU)
    expected = {name: tensor.clone() for name, tensor in first.backbone.state_dict().items()}
    weight = next(first.backbone.parameters())
    if change == "weights":
        weight.data[..., 0] += 1e-3
    elif change == "trains":
        first.backbone.requires_grad_(True)
    else:
        first.half()

    second, third = restore_model(artifact, device=CPU), restore_model(artifact, device=CPU)

    assert loads == ["vit_micro"] * 2
    assert second.backbone is third.backbone is not first.backbone
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in second.backbone.parameters())


@pytest.mark.parametrize(
    "tuning", ["ssf", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("full", "bias", "adapter", "partial"))]
)
def test_one_that_tuning_changed_is_nobody_elses(tmp_path: Path, loads: list[str], tuning: str) -> None:
    plain, tuned = saved(tmp_path, "plain"), saved(tmp_path, "tuned", tuning=tuning)
    loads.clear()
    shared = restore_model(plain, device=CPU)
    before = {name: tensor.clone() for name, tensor in shared.backbone.state_dict().items()}

    first, second = restore_model(tuned, device=CPU), restore_model(tuned, device=CPU)

    assert loads == ["vit_micro"] * 3
    assert len({id(model.backbone) for model in (shared, first, second)}) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.backbone.state_dict().items())


@pytest.mark.slow
def test_another_size_precision_or_option_is_another_encoder(tmp_path: Path, loads: list[str]) -> None:
    artifact = saved(tmp_path, "a")
    kept = [
        restore_model(artifact, device=CPU),
        restore_model(artifact, device=CPU, precision="bf16-mixed"),
        restore_model(saved(tmp_path, "large", plan_with(image_size=96)), device=CPU),
    ]
    fused = config_of(backbone={"name": "sam_micro"}).backbone
    original = config_of(backbone={"name": "sam_micro", "options": {"attention": "original"}}).backbone
    encoders = [model.backbone for model in kept]
    encoders += [shared_encoder(own, 64, CPU, "32-true") for own in (fused, original, fused)]

    assert len({id(encoder) for encoder in encoders}) == 5
    assert encoders[3] is encoders[5]
    assert encoders[1].vit.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert encoders[0].vit.blocks[0].mlp.fc1.weight.dtype == torch.float32


@pytest.mark.slow
def test_it_is_freed_with_the_last_that_uses_it(tmp_path: Path, loads: list[str]) -> None:
    artifact = saved(tmp_path, "a")
    first, second = restore_model(artifact, device=CPU), restore_model(artifact, device=CPU)
    encoder = weakref.ref(first.backbone)

    del first
    gc.collect()
    assert encoder() is second.backbone
    del second
    gc.collect()
    assert encoder() is None
    loads.clear()
    restore_model(artifact, device=CPU)
    assert loads == ["vit_micro"]


@pytest.mark.slow
def test_a_file_that_was_written_again_is_loaded_again(tmp_path: Path) -> None:
    weights = shutil.copy(MICRO_WEIGHTS, tmp_path / "weights.safetensors")
    artifact = saved(tmp_path, "a", backbone={"name": "vit_micro", "weights": str(weights)})
    first = restore_model(artifact, device=CPU)
    assert restore_model(artifact, device=CPU).backbone is first.backbone

    tensors = load_file(weights)
    tensors["norm.bias"] = tensors["norm.bias"] + 1
    save_file(tensors, weights)

    with pytest.raises(VptError, match=r"a\.safetensors: trained on vit_micro with weights of SHA-256"):
        restore_model(artifact, device=CPU)
    shutil.copy(MICRO_WEIGHTS, weights)
    again = restore_model(artifact, device=CPU)
    assert again.backbone.sha256 == first.backbone.sha256


@pytest.mark.slow
def test_without_a_device_an_encoder_is_its_models_own(tmp_path: Path) -> None:
    artifact = saved(tmp_path, "a")
    assert restore_model(artifact).backbone is not restore_model(artifact).backbone


def test_a_model_is_what_its_config_says() -> None:
    own = load_encoder(config_of().backbone, 64)
    model = build_model(config_of(prompts={"method": "deep", "count": 3}), PLAN, 4, own)
    assert model.backbone is own
    assert isinstance(model.head, MaskHead)
    assert (model.head.classify.out_channels, model.prompts.count) == (4, 3)
    classes = load_config({"data": {"path": "x", "target": "grades"}, "task": "classification"})
    graded = build_model(classes, plan_with(image_size=64, slices=4, pixel_mm=None), 5)
    assert isinstance(graded.head, ClassifyHead)
    assert graded.head.output.out_features == 4
    assert graded.head.over_slices is not None


# --- an encoder and what reads it, or neither -------------------------------------------------------------------------

UNET: dict[str, Any] = {
    "backbone": {"name": "none"},
    "prompts": {"method": "none"},
    "head": {"kind": "unet", "width": 4},
}


def test_a_network_of_its_own_is_restored_without_any_weights(tmp_path: Path, loads: list[str]) -> None:
    artifact = saved(tmp_path, "unet", **UNET)
    assert (artifact.counts["trained"], artifact.counts["frozen"]) == (artifact.counts["head"], 0)
    model = restore_model(artifact, device=CPU)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 64, 64)
    assert set(loads) == {"none"}
    assert {name: tensor.shape for name, tensor in model.trained_state().items()} == {
        name: tensor.shape for name, tensor in artifact.tensors.items()
    }


@pytest.mark.parametrize(
    ("changes", "found", "wanted"),
    [
        (
            {"backbone": {"name": "none"}},
            "prompts.method=deep, head.kind=mask",
            "prompts.method=none, head.kind=unet",
        ),
        ({"head": {"kind": "unet"}}, "backbone.name=vit_micro, prompts.method=deep", "backbone.name=none, "),
        (UNET | {"prompts": {"method": "shallow"}}, "prompts.method=shallow", "prompts.method=none"),
        (UNET | {"prompts": {"method": "additive"}}, "prompts.method=additive", "prompts.method=none"),
        (UNET | {"tuning": {"method": "ssf"}}, "tuning.method=ssf", "tuning.method=prompts"),
        (UNET | {"head": {"kind": "sam_decoder"}}, "head.kind=sam_decoder", "head.kind=unet"),
    ],
)
def test_prompts_tuning_and_other_heads_need_an_encoder(changes: Any, found: str, wanted: str) -> None:
    with pytest.raises(VptError, match=f"with no encoder to prompt, tune or read, but found {found}; set {wanted}"):
        build_model(config_of(**changes), PLAN, 2)


def test_without_an_encoder_nothing_can_be_classified() -> None:
    config = load_config({"data": {"path": "x"}, **UNET, "head": {"kind": "linear"}}).resolved("classification")
    with pytest.raises(VptError, match=r"found head\.kind=linear; set head\.kind=unet"):
        build_model(config, PLAN, 2)


def test_a_folder_of_weights_brings_its_normalisation_and_may_move(tmp_path: Path) -> None:
    """As `transformers` saves it: no backbone by itself, but weights with what says how images were prepared."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, old / "model.safetensors")
    (old / "config.json").write_text(json.dumps({"model_type": "vit", "num_attention_heads": 2}))
    (old / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    artifact = saved(tmp_path, "moved", backbone={"name": "test_vit", "weights": str(old)})
    assert artifact.preprocessing["mean"] == [0.1] * 3
    old.rename(new)
    spec = restore_model(artifact, new).backbone.spec
    assert (spec.mean, spec.std) == ((0.1,) * 3, (0.2,) * 3)
    (new / "preprocessor_config.json").unlink()
    with pytest.raises(VptError, match=r"trained on images with .* keep beside its weights what lay there in training"):
        restore_model(artifact, new)

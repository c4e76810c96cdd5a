"""What training leaves behind: one small file that says all it takes to use it, and refuses the wrong backbone."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_run import SETTINGS

from vpt.artifact import FORMAT, find_artifact, read_artifact, save_artifact
from vpt.backbones import load_backbone
from vpt.backbones.families import published
from vpt.building import build_model
from vpt.config import Config, ResolvedConfig, load_config
from vpt.data.plan import Percentiles, Plan
from vpt.errors import VptError, VptWarning
from vpt.heads import MaskHead
from vpt.model import PromptedModel
from vpt.restoring import restore_model

PLAN = Plan(
    plane="coronal", pixel_mm=0.75, image_size=64, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip
LABELS = {0: "background", 2: "dark", 7: "bright"}  # not consecutive


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    return metadata | {"vpt": json.loads(metadata["vpt"])}


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    """The artifact again, with another format or other entries in its header."""
    found = header(path)
    entries = found["vpt"] | {key: value for key, value in changes.items() if key != "format"}
    metadata = {"format": changes.get("format", found["format"]), "vpt": json.dumps(entries)}
    save_file(load_file(path) if tensors is None else tensors, path, metadata=metadata)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    values = {"data": {"path": str(tmp_path)}, "prompts": {"method": "deep", "count": 2, "project": 8}}
    return load_config(values).resolved("segmentation")


@pytest.fixture
def model(config: Config) -> PromptedModel:
    return build_model(config, PLAN, len(LABELS)).eval()


@pytest.fixture
def saved(tmp_path: Path, model: PromptedModel, config: Config) -> Path:
    path = tmp_path / "a.safetensors"
    save_artifact(path, model, config=config, plan=PLAN, labels=LABELS, scores={"validation": {"dice": 0.5}})
    return path


@pytest.mark.slow
def test_it_holds_exactly_the_trained_tensors(tiny_run: Path) -> None:
    backbone = load_backbone("vit_micro", image_size=64)
    head = MaskHead(backbone.spec, classes=3)
    expected = {f"head.{name}": tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    expected["prompts.table.tokens"] = (8, 4, 128)  # blocks, count, width
    found = load_file(tiny_run / "best.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_it_says_whose_the_encoders_weights_are(saved: Path, tiny_run: Path) -> None:
    assert read_artifact(saved).origin == read_artifact(tiny_run).origin == published("vit_micro")
    assert f"encoder: {published('vit_micro')}" in (tiny_run / "train.log").read_text()
    before = header(saved)["vpt"]["backbone"]
    del before["origin"], before["licence"]
    rewrite(saved, backbone=before)
    assert read_artifact(saved).origin is None  # of an artifact that did not record it yet


def test_it_is_small_and_its_parameters_few(tiny_run: Path) -> None:
    assert (tiny_run / "best.safetensors").stat().st_size < 2e6
    counts = read_artifact(tiny_run).counts
    assert counts["trained"] < 500_000
    assert counts["trained"] == sum(tensor.numel() for tensor in load_file(tiny_run / "best.safetensors").values())
    assert counts["trained"] == counts["prompts"] + counts["head"]


def test_the_header_says_all_it_takes_to_use_it(tiny_run: Path, tiny_data: Path) -> None:
    found = header(tiny_run / "best.safetensors")
    assert found["format"] == FORMAT
    entries = found["vpt"]
    assert ResolvedConfig.model_validate(entries["config"]) == load_config(tiny_data, SETTINGS).resolved("segmentation")
    assert entries["plan"] == json.loads((tiny_run / "plan.json").read_text())
    assert entries["labels"] == {"0": "background", "1": "dark", "2": "bright"}
    assert entries["backbone"] == {
        "name": "vit_micro",
        "sha256": load_backbone("vit_micro").sha256,
        "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "padding": "centre"},
        "pool": "cls",
        "origin": "vit_micro of this package, see its model card",
        "licence": "for research and education, see there",
    }
    assert entries["versions"] == {name: version(name) for name in ("vpt", "torch", "timm", "monai")}
    assert entries["scores"]["validation"].keys() == {"dice", "dice_dark", "dice_bright", "epoch"}


def test_labels_and_scores_come_back_as_they_were(saved: Path, config: Config) -> None:
    artifact = read_artifact(saved)
    assert artifact.labels == LABELS
    assert artifact.plan == PLAN
    assert artifact.config == config
    assert artifact.scores == {"validation": {"dice": 0.5}}


def test_a_restored_model_gives_identical_outputs(saved: Path, model: PromptedModel) -> None:
    torch.manual_seed(99)  # another start of prompts and head
    restored = restore_model(read_artifact(saved))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))
    assert not restored.training


PROMPTS = {
    "none": {"method": "none"},
    "shallow": {"method": "shallow", "count": 2},
    "deep": {"method": "deep", "count": 2, "blocks": "global"},
    "additive": {"method": "additive", "form": "grid"},
    "deep_shared": {"method": "deep", "count": 2, "shared": True},
    "low_rank": {"method": "low_rank", "count": 4, "rank": 2, "blocks": "last:3"},
    "gated": {"method": "gated", "count": 2, "gate": 0.5},
    "fourier": {"method": "fourier", "count": 4, "share": 0.5},
    "conditioned": {"method": "conditioned", "count": 2, "hidden": 4, "kernel": 2},
    "cross": {"method": "cross", "count": 3, "blocks": "last:2", "init": "uniform"},
}


OF_CLASSES = {"class_queries": {"method": "class_queries", "count": 2, "before": 1}}


@pytest.mark.parametrize("prompts", (PROMPTS | OF_CLASSES).values(), ids=PROMPTS | OF_CLASSES)
def test_every_prompt_method_is_restored_and_gives_identical_outputs(tmp_path: Path, prompts: dict[str, Any]) -> None:
    config = load_config({"data": {"path": str(tmp_path)}, "prompts": prompts}).resolved("segmentation")
    model = build_model(config, PLAN, len(LABELS)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path, images = tmp_path / "a.safetensors", torch.randn(2, 3, 64, 64)
    save_artifact(path, model, config=config, plan=PLAN, labels=LABELS, scores={})
    torch.manual_seed(99)
    artifact = read_artifact(path)
    restored = restore_model(artifact)
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))
    assert artifact.config == config
    trained = sum(tensor.numel() for name, tensor in artifact.tensors.items() if name.startswith("prompts."))
    assert trained == artifact.counts["prompts"]
    assert not any(name.startswith("backbone.") for name in artifact.tensors)


@pytest.mark.slow
@pytest.mark.parametrize("hints", [False, True])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_a_restored_sam_gives_identical_outputs(tmp_path: Path, prompts: dict[str, Any], hints: bool) -> None:
    values = {
        "data": {"path": str(tmp_path)},
        "backbone": {"name": "sam_micro"},
        "prompts": prompts,
        "head": {"kind": "sam_decoder", "hints": hints},
    }
    config, plan = load_config(values).resolved("segmentation"), PLAN.model_copy(update={"image_size": 72})
    model = build_model(config, plan, len(LABELS)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.trained().values():  # as if trained: nothing is at its start
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "a.safetensors"
    save_artifact(path, model, config=config, plan=plan, labels=LABELS, scores={})
    torch.manual_seed(99)
    artifact = read_artifact(path)
    restored = restore_model(artifact)
    images = torch.randn(2, 3, 72, 72)
    given = torch.tensor([[(8.0, 9.0, 2.0), (60.0, 50.0, 3.0)], [(30.0, 30.0, 1.0), (2.0, 2.0, 0.0)]])
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))
        if hints:
            assert torch.equal(restored(images, given), model(images, given))
            assert not torch.equal(restored(images, given), restored(images))
    assert artifact.config == config
    assert header(path)["vpt"]["backbone"]["preprocessing"]["padding"] == "corner"
    assert not any(name.startswith("backbone.") for name in artifact.tensors)
    assert artifact.backbone_sha256 == load_backbone("sam_micro").sha256


def test_a_sam_of_other_weights_is_refused(tmp_path: Path) -> None:
    values = {"data": {"path": str(tmp_path)}, "backbone": {"name": "sam_micro"}, "head": {"kind": "sam_decoder"}}
    config, path = load_config(values).resolved("segmentation"), tmp_path / "a.safetensors"
    save_artifact(path, build_model(config, PLAN, 3), config=config, plan=PLAN, labels=LABELS, scores={})
    with pytest.raises(VptError, match=r"a\.safetensors: trained on sam_micro with weights of SHA-256 .* in random"):
        restore_model(read_artifact(path), "random")


def test_an_artifact_from_before_there_were_kinds_of_heads_still_loads(saved: Path, model: PromptedModel) -> None:
    stored = header(saved)["vpt"]["config"]
    assert stored["head"].pop("kind") == "mask"
    assert stored["backbone"].pop("options") == {}
    assert set(stored["head"]) == {"width", "detail", "levels"}
    backbone = {key: value for key, value in header(saved)["vpt"]["backbone"].items() if key != "preprocessing"}
    rewrite(saved, config=stored, backbone=backbone)
    restored, images = restore_model(read_artifact(saved)), torch.randn(2, 3, 64, 64)
    assert isinstance(restored.head, MaskHead)
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))


def test_an_artifact_with_a_setting_that_its_task_does_not_use_still_loads(saved: Path, model: PromptedModel) -> None:
    """They were accepted, and ignored, before they were refused."""
    stored = header(saved)["vpt"]["config"]
    stored["train"]["calibrate"], stored["plan"]["slices"], stored["data"]["target"] = True, 4, "labels"
    rewrite(saved, config=stored)
    with pytest.raises(VptError, match=r"^data\.target=labels is a setting of classification, which segmentation does"):
        load_config(stored).resolved("segmentation")
    restored, images = restore_model(read_artifact(saved)), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))


@pytest.mark.parametrize("attention", ["fused", "original"])
def test_an_artifact_from_before_encoders_had_options_still_loads(tmp_path: Path, attention: str) -> None:
    values = {"data": {"path": str(tmp_path)}, "backbone": {"name": "sam_micro", "options": {"attention": attention}}}
    config, path = load_config(values).resolved("segmentation"), tmp_path / "a.safetensors"
    model = build_model(config, PLAN, len(LABELS)).eval()
    save_artifact(path, model, config=config, plan=PLAN, labels=LABELS, scores={})
    stored = header(path)["vpt"]["config"]
    assert stored["backbone"].pop("options") == {"attention": attention}
    stored["backbone"]["attention"] = attention  # where it stood
    rewrite(path, config=stored)
    restored, images = restore_model(read_artifact(path)), torch.randn(2, 3, 64, 64)
    assert restored.backbone.attention == attention
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))


def test_another_preprocessing_than_that_of_the_training_is_refused(saved: Path) -> None:
    backbone = header(saved)["vpt"]["backbone"]
    backbone["preprocessing"]["mean"] = [0.0, 0.0, 0.0]
    rewrite(saved, backbone=backbone)
    with pytest.raises(VptError, match=r"trained on images with .*\[0\.0, 0\.0, 0\.0\].*vit_micro is given .*0\.5"):
        restore_model(read_artifact(saved))


def test_saving_changes_nothing_in_the_model(model: PromptedModel, config: Config, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_artifact(tmp_path / "a.safetensors", model, config=config, plan=PLAN, labels=LABELS, scores={})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_other_weights_are_refused_and_both_are_named(saved: Path, tmp_path: Path) -> None:
    right = load_backbone("vit_micro").sha256
    other = load_backbone("vit_micro", weights="random")
    weights = tmp_path / "other.safetensors"
    save_file({name.removeprefix("vit."): tensor for name, tensor in other.state_dict().items()}, weights)
    said = (
        f"a.safetensors: trained on vit_micro with weights of SHA-256 {right[:16]}..., "
        f"found {other.sha256[:16]}... in {weights}; give the weights it was trained on with --weights FILE"
    )
    with pytest.raises(VptError) as caught:
        restore_model(read_artifact(saved), weights)
    assert str(caught.value).endswith(said)


def test_the_right_weights_are_taken_from_wherever_they_lie(saved: Path, tmp_path: Path) -> None:
    from vpt.backbones.vit_models import MICRO_WEIGHTS

    moved = shutil.copy(MICRO_WEIGHTS, tmp_path / "moved.safetensors")
    assert restore_model(read_artifact(saved), moved).backbone.sha256 == load_backbone("vit_micro").sha256


def test_a_newer_format_is_refused(saved: Path) -> None:
    rewrite(saved, format="vpt-artifact/2")
    with pytest.raises(VptError, match=r"a\.safetensors: .*found vpt-artifact/2, expected vpt-artifact/1\); update"):
        read_artifact(saved)


def test_other_safetensors_are_no_artifact(saved: Path) -> None:
    save_file({"a": torch.zeros(2)}, saved)
    with pytest.raises(VptError, match=r"a\.safetensors: tensors of something else \(found no format mark.*--weights"):
        read_artifact(saved)


def test_a_file_of_another_kind_is_not_to_be_copied_again(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(VptError, match=r"model\.pt: not a readable safetensors file .*; give a run's folder"):
        read_artifact(path)


@pytest.mark.parametrize("size", [0, 4, 1000, -100])
def test_a_truncated_file_is_refused(saved: Path, size: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:size])
    with pytest.raises(VptError, match=r"a\.safetensors: not a readable safetensors file .*copy it again"):
        read_artifact(saved)


def test_a_plan_or_config_of_a_later_version_is_said(saved: Path) -> None:
    entries = header(saved)["vpt"]
    rewrite(saved, plan=entries["plan"] | {"warp": 9})
    with pytest.raises(
        VptError,
        match=r"a\.safetensors: its header is damaged, or was edited: made with vpt .*, but plan\.warp is unknown here",
    ):
        read_artifact(saved)
    rewrite(saved, plan=entries["plan"], config=entries["config"] | {"warp": 9})
    with pytest.raises(
        VptError,
        match=r"a\.safetensors: its header is damaged, or was edited: made with vpt .*, but warp is unknown here",
    ):
        read_artifact(saved)


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("prompts", {"method": "mirror", "count": 4}, "prompts: no method .* is called 'mirror'"),
        ("head", {"kind": "cosine"}, "head: no kind .* is called 'cosine'"),
    ],
)
def test_a_method_of_a_package_that_is_not_there_is_told_as_such(
    saved: Path, section: str, values: Any, said: str
) -> None:
    config = header(saved)["vpt"]["config"]
    rewrite(saved, config=config | {section: values})
    with pytest.raises(VptError, match=rf"a\.safetensors: {said}; install the package that brings it"):
        read_artifact(saved)


def test_tensors_that_do_not_fit_are_named(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["head.extra"] = tensors.pop("head.mix.0.weight")
    rewrite(saved, tensors)
    with pytest.raises(VptError, match=r"missing keys: head\.mix\.0\.weight; left-over keys: head\.extra"):
        restore_model(read_artifact(saved))


def test_best_is_taken_before_last_and_last_is_not_taken_in_silence(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "last.safetensors").touch()
    with pytest.warns(VptWarning, match=r"holds no best\.safetensors .* so last\.safetensors is used"):
        assert find_artifact(tmp_path) == tmp_path / "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert find_artifact(tmp_path) == tmp_path / "best.safetensors"
    assert find_artifact(tmp_path / "last.safetensors") == tmp_path / "last.safetensors"
    assert not recwarn.list


def test_a_place_without_an_artifact_is_said(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"holds no best\.safetensors or last\.safetensors; give a run's folder"):
        find_artifact(tmp_path)
    with pytest.raises(VptError, match="nowhere: no such file or folder; give a run's folder"):
        find_artifact(tmp_path / "nowhere")


def test_a_disk_that_refuses_leaves_the_old_artifact(saved: Path, model: PromptedModel, config: Config) -> None:
    with pytest.raises(VptError, match="cannot be written"):
        save_artifact(Path("/proc/a.safetensors"), model, config=config, plan=PLAN, labels=LABELS, scores={})
    assert read_artifact(saved).labels == LABELS

"""What older versions wrote is read with the values that were in force then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vpt.artifact import read_artifact, save_artifact
from vpt.backbones import load_backbone
from vpt.backbones.vit_models import ASSETS
from vpt.building import build_model
from vpt.config import Config, as_written, build_config, dump_config, load_config, load_written
from vpt.data.plan import Percentiles, Plan
from vpt.restoring import restore_model

PLAN = Plan(
    plane="axial", pixel_mm=1.0, image_size=64, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip
OLD: dict[str, dict[str, Any]] = {
    "cross": {"prompts": {"method": "cross", "count": 2, "normed": True}},
    "fourier": {"prompts": {"method": "fourier", "count": 3, "rounded": True}},
    "conditioned": {"prompts": {"method": "conditioned", "count": 2, "dropout": 0.0}},
    "adapter": {"tuning": {"method": "adapter", "normed": True, "dropout": 0.0}},
}
NEW_KEYS = ("normed", "rounded", "dropout")


def config_of(name: str, **more: Any) -> Config:
    return load_config({"data": {"path": "x"}, "task": "segmentation", **OLD[name], **more})


def without_new_keys(values: dict[str, Any], name: str) -> dict[str, Any]:
    (section,) = OLD[name]
    new = set(OLD[name][section]) & set(NEW_KEYS)
    return values | {section: {key: value for key, value in values[section].items() if key not in new}}


@pytest.mark.parametrize("name", OLD)
def test_settings_that_an_older_config_lacks_are_those_of_its_time(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    old = without_new_keys(config.model_dump(mode="json"), name)

    assert build_config(as_written(old), "old") == config
    assert build_config(old, "new") != config  # what one writes today without them has today's defaults
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert load_written(tmp_path / "config.yaml") == config
    assert load_written(tmp_path / "config.yaml", {"seed": 3}).seed == 3


def test_a_control_that_was_written_as_a_name_is_known() -> None:
    assert as_written({"tuning": "adapter"})["tuning"] == {"method": "adapter", "normed": True, "dropout": 0.0}
    assert as_written({"tuning": "ssf", "prompts": None}) == {"tuning": "ssf", "prompts": None}


@pytest.mark.parametrize("name", OLD)
def test_what_is_written_today_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    (section,) = OLD[name]
    config = load_config({"data": {"path": "x"}, section: {"method": OLD[name][section]["method"]}})
    (tmp_path / "config.yaml").write_text(dump_config(config))

    assert load_written(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", OLD)
def test_an_artifact_of_an_older_version_predicts_as_it_did(name: str, tmp_path: Path) -> None:
    config = config_of(name, backbone={"name": "vit_micro", "weights": "random"})
    path = tmp_path / "a.safetensors"
    model = build_model(config, PLAN, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_artifact(path, model, config=config, plan=PLAN, labels={0: "a", 1: "b"}, scores={})
    rewrite(path, lambda header: header | {"config": without_new_keys(header["config"], name)})
    images = torch.randn(2, 3, 64, 64)

    with torch.no_grad():
        assert torch.equal(restore_model(read_artifact(path))(images), model.eval()(images))


def rewrite(path: Path, change: Any) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if key != "sha256"}  # there was none
    save_file(load_file(path), path, metadata=metadata | {"vpt": json.dumps(change(json.loads(metadata["vpt"])))})


def test_a_classifier_of_an_older_version_reads_the_vector_that_it_learned_from(tmp_path: Path) -> None:
    """timm's test_vit2 averages its patches, with a norm after that, which older versions did not know."""
    values = {"data": {"path": "x"}, "task": "classification", "prompts": "none"}
    backbone = {"name": "test_vit2", "weights": "random"}
    plain = load_config(values | {"backbone": backbone | {"options": {"pooling": "plain"}}})
    own, plan, path = load_config(values | {"backbone": backbone}), PLAN, tmp_path / "a.safetensors"
    plan = PLAN.model_copy(update={"image_size": 64, "pixel_mm": None})
    model, images = build_model(plain, plan, 2).eval(), torch.randn(2, 3, 64, 64)
    save_artifact(path, model, config=own, plan=plan, labels={0: "a", 1: "b"}, scores={})
    assert read_artifact(path).pool == "mean"

    def before(header: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in header["backbone"].items() if key != "pool"}
        return header | {"backbone": kept}

    with torch.no_grad():
        today = restore_model(read_artifact(path))(images)
        rewrite(path, before)
        assert read_artifact(path).pool is None
        assert torch.equal(restore_model(read_artifact(path))(images), model(images))
        assert not torch.allclose(today, model(images), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["vit_micro", "sam_micro"])
def test_the_embedded_encoders_earlier_weights_are_found_by_an_artifact_that_was_trained_on_them(
    name: str, version: int, tmp_path: Path
) -> None:
    earlier = load_backbone(name, weights=ASSETS / f"vit_micro_{version}.safetensors", image_size=64)
    config = Config(task="segmentation", data={"path": "."}, backbone={"name": name}).resolved("segmentation")
    model = build_model(config, PLAN, 2, earlier).eval()
    save_artifact(
        tmp_path / "old.safetensors", model, config=config, plan=PLAN, labels={0: "none", 1: "one"}, scores={}
    )
    images = torch.rand(1, 3, 64, 64)

    found = restore_model(read_artifact(tmp_path / "old.safetensors"))

    assert earlier.sha256 != load_backbone(name).sha256
    assert torch.equal(found(images), model(images))

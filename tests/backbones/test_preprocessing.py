"""What lies beside weights comes from strangers: what cannot be meant is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from vpt.backbones.families import load_backbone
from vpt.backbones.preprocessing import preprocessing_beside
from vpt.backbones.weights import read_state
from vpt.errors import VptError, VptWarning


def folder(tmp_path: Path, **said: Any) -> Path:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    return tmp_path


@pytest.mark.parametrize("std", [[0, 1, 1], [-1, 1, 1], ["a", 1, 1], [None, 1, 1], [float("nan"), 1, 1], [True, 1, 1]])
def test_a_deviation_by_which_nothing_can_be_divided_is_refused(tmp_path: Path, std: list[Any]) -> None:
    with pytest.raises(
        VptError, match=r"preprocessor_config.json: says .*, expected three numbers each for images in \[0, 1\]"
    ):
        preprocessing_beside(folder(tmp_path, image_mean=[0.5, 0.5, 0.5], image_std=std))


@pytest.mark.parametrize("resample", [[2], {"a": 1}, "2", None, 99])
def test_an_interpolation_that_nobody_knows_is_left_out(tmp_path: Path, resample: Any) -> None:
    found = preprocessing_beside(folder(tmp_path, image_mean=[0, 0, 0], image_std=[1, 1, 1], resample=resample))
    assert found == {"mean": (0, 0, 0), "std": (1, 1, 1)}


def test_an_index_that_names_itself_as_a_part_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(VptError, match=r"cannot be read as weights \(RecursionError"):
        read_state(index)


def test_two_tensors_of_one_name_and_two_types_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "module.a": torch.ones(1).half()}, tmp_path / "model.safetensors")
    with pytest.raises(VptError, match="holds two different tensors for a"):
        read_state(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "said",
    [
        {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
        {"image_mean": [0.5], "image_std": [0.5]},
        {"image_mean": [0.5, 0.5, 0.5]},
        {"image_mean": [-0.1, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    ],
    ids=["of 255", "of one channel", "mean alone", "below black"],
)
def test_what_cannot_be_of_images_from_black_to_white_is_refused_by_the_files_name(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with pytest.raises(VptError, match=r"preprocessor_config\.json: says that images have mean .*; mend it there"):
        preprocessing_beside(folder(tmp_path, **said))


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        (
            {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255},
            (0.1, 0.2, 0.3),
            None,
        ),
        ({"image_mean": [51, 102, 153], "image_std": [102, 127.5, 153], "do_rescale": False}, (0.2, 0.4, 0.6), None),
        ({"image_mean": 1, "image_std": [0.8, 1, 1.2], "rescale_factor": 1 / 127.5}, (0.5, 0.5, 0.5), None),
        ({"do_normalize": False}, (0, 0, 0), (1, 1, 1)),
        ({"do_normalize": False, "do_rescale": False}, (0, 0, 0), (1 / 255,) * 3),
    ],
)
def test_values_from_0_to_255_are_told_of_values_from_0_to_1(
    tmp_path: Path, said: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...] | None
) -> None:
    """A pixel v of 0 to 255 becomes (factor v - mean) / std there, and (v / 255 - mean) / std here."""
    found = preprocessing_beside(folder(tmp_path, **said))
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx(std or (0.4, 0.5, 0.6))


@pytest.mark.parametrize(("number", "name", "instead"), [(0, "nearest", "bilinear"), (1, "lanczos", "bicubic")])
def test_a_resizing_that_is_not_done_here_is_said(tmp_path: Path, number: int, name: str, instead: str) -> None:
    with pytest.warns(VptWarning, match=rf"resized by {name}, which is not done here; they are enlarged by {instead}"):
        assert preprocessing_beside(folder(tmp_path, resample=number)) == {"interpolation": instead}


def test_a_description_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    file = folder(tmp_path) / "preprocessor_config.json"
    file.write_text("{")
    with pytest.raises(VptError, match=r"preprocessor_config\.json: is no JSON object, so how images are prepared"):
        preprocessing_beside(tmp_path)


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ({"std": [0, 1, 1]}, {}, r"says that images have mean .* and std \[0, 1, 1\], expected three numbers"),
        ({"mean": [123, 116, 103]}, {}, r"says that images have mean \[123, 116, 103\]"),
        ({"mean": None}, {}, "says that images have mean None"),
        ({}, {"in_chans": 1}, r"takes images of 1 channel, expected 3; choose one of colour images"),
        ({}, {"in_chans": 4}, r"takes images of 4 channels, expected 3"),
    ],
)
def test_a_folder_that_is_a_backbone_is_asked_the_same(
    tmp_path: Path, config: dict[str, Any], arguments: dict[str, Any], said: str
) -> None:
    model = timm.create_model("test_vit", num_classes=0, **arguments)
    timm.models.save_for_hf(model, str(tmp_path / "own"), safe_serialization=True, model_args=arguments)
    content = json.loads((tmp_path / "own" / "config.json").read_text())
    content["pretrained_cfg"] |= config
    (tmp_path / "own" / "config.json").write_text(json.dumps(content))
    with pytest.raises(VptError, match=said):
        load_backbone(str(tmp_path / "own"))

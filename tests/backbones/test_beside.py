"""What lies beside weights comes from strangers: what cannot be meant is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vpt.backbones.beside import preprocessing_beside
from vpt.backbones.weights import read_state
from vpt.errors import VptError


def folder(tmp_path: Path, **said: Any) -> Path:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    return tmp_path


@pytest.mark.parametrize("std", [[0, 1, 1], [-1, 1, 1], ["a", 1, 1], [None, 1, 1], [float("nan"), 1, 1], [True, 1, 1]])
def test_a_deviation_by_which_nothing_can_be_divided_is_refused(tmp_path: Path, std: list[Any]) -> None:
    with pytest.raises(VptError, match=r"expected three numbers each, those of std above 0; mend preprocessor_config"):
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

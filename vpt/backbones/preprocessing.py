"""What lies beside a file of weights and belongs to it: how images were prepared, whose they are, which model it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.backbones.base import enlarging, normalisation
from vpt.backbones.weights import RANDOM, weights_file
from vpt.errors import VptError
from vpt.files import read_object

USUAL = ("model", "pytorch_model", "open_clip")  # how files of weights begin whose folder is theirs alone
# Pillow's numbers, as `transformers` writes them.
PILLOWS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
LARGEST = 255  # of the values of pictures there


def preprocessing_beside(weights: str | Path | None) -> dict[str, Any]:
    """`mean`, `std` and `interpolation` as far as the folder of the weights says them; {} where it says nothing.

    `transformers` keeps them in preprocessor_config.json, timm in config.json. weights: as of `load_backbone`.

    Raises:
        VptError: a file that says nothing readable; a mean or std that are no three numbers, or that no image in
            [0, 1] has.
    """
    folder = _folder_of(weights)
    if folder is None:
        return {}
    if said := _said_by(file := folder / "preprocessor_config.json"):
        return _by_transformers(said, file)
    own = _said_by(file := folder / "config.json").get("pretrained_cfg")
    return _known(own.get("mean"), own.get("std"), own.get("interpolation"), file) if isinstance(own, Mapping) else {}


def is_backbone(folder: str | Path) -> bool:
    """Whether a folder describes its model itself, as timm writes it; else it may hold the weights of a named one."""
    return os.path.isdir(folder) and "architecture" in read_object(Path(folder) / "config.json")


def _folder_of(weights: str | Path | None) -> Path | None:
    if weights is None or weights == RANDOM or "://" in str(weights):
        return None
    try:
        file = weights_file(weights)
    except VptError:  # whoever reads the weights says so
        return None
    return file.parent if os.path.isdir(weights) or file.name.startswith(USUAL) else None


def _by_transformers(said: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Values are multiplied by `rescale_factor` there, from 0 to 255, where ours are from 0 to 1."""
    number = said.get("resample")
    method = PILLOWS.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
    white = 1.0
    if said.get("do_rescale") is False:
        white = LARGEST
    elif isinstance(factor := said.get("rescale_factor"), int | float) and factor > 0:
        white = 1.0 if math.isclose(factor * LARGEST, 1) else factor * LARGEST
    mean, std = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize") is False:
        mean, std = 0.0, 1.0
    if white != 1.0 and mean is not None and std is not None:
        mean, std = (_divided(values, white) for values in (mean, std))
    return _known(mean, std, method, file)


def _known(mean: Any, std: Any, method: Any, file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {} if method is None else {"interpolation": enlarging(method, file)}
    if mean is not None or std is not None:
        found["mean"], found["std"] = normalisation(mean, std, file)
    return found


def _divided(values: Any, by: float) -> Any:
    """Numbers, or one; what is no number stays as it is, to be refused by name."""
    if isinstance(values, list | tuple):
        return [_divided(value, by) for value in values]
    return values / by if isinstance(values, int | float) and not isinstance(values, bool) else values


def _said_by(file: Path) -> dict[str, Any]:
    """What a file says; {} where it is not there.

    Raises:
        VptError: it is no JSON object, so that nobody knows what it says.
    """
    if not file.is_file():
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise VptError(
            f"{file}: is no JSON object, so how images are prepared for these weights is not known; get the file "
            "again, or give the file of weights alone"
        )
    return said

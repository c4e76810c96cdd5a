"""What lies beside a file of weights and belongs to it: how images were prepared, whose they are, which model it is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.backbones.weights import RANDOM, weights_file
from vpt.errors import VptError
from vpt.files import read_object

USUAL = ("model", "pytorch_model", "open_clip")  # how files of weights begin whose folder is theirs alone
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as `transformers` writes them


def preprocessing_beside(weights: str | Path | None) -> dict[str, Any]:
    """`mean`, `std` and `interpolation` as far as the folder of the weights says them; {} where it says nothing.

    `transformers` keeps them in preprocessor_config.json, timm in config.json. weights: as of `load_backbone`.

    Raises:
        VptError: a mean or std that are no numbers, or a std by which nothing can be divided.
    """
    folder = _folder_of(weights)
    if folder is None:
        return {}
    if said := read_object(folder / "preprocessor_config.json"):
        return _by_transformers(said, folder)
    own = read_object(folder / "config.json").get("pretrained_cfg")
    return _known(own, own.get("interpolation"), folder) if isinstance(own, Mapping) else {}


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


def _by_transformers(said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    number = said.get("resample")
    resampling = RESAMPLING.get(number) if isinstance(number, int) else None
    if said.get("do_normalize") is False:
        return {"mean": (0.0,) * 3, "std": (1.0,) * 3} | ({"interpolation": resampling} if resampling else {})
    return _known({"mean": said.get("image_mean"), "std": said.get("image_std")}, resampling, folder)


def _known(said: Mapping[str, Any], interpolation: Any, folder: Path) -> dict[str, Any]:
    usable = isinstance(interpolation, str) and interpolation in RESAMPLING.values()
    found: dict[str, Any] = {"interpolation": interpolation} if usable else {}
    mean, std = said.get("mean"), said.get("std")
    if isinstance(mean, list | tuple) and isinstance(std, list | tuple) and len(mean) == len(std) == 3:
        if not (all(map(_is_number, (*mean, *std))) and min(std) > 0):
            raise VptError(
                f"{folder}: says that images have mean {mean} and std {std}, expected three numbers each, those of std "
                "above 0; mend preprocessor_config.json or config.json there, or give the file of weights alone"
            )
        found |= {"mean": tuple(mean), "std": tuple(std)}
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

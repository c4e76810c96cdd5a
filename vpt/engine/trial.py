"""One training of a comparison, and its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vpt.backbones import describe_backbone
from vpt.backbones.nothing import in_place_of
from vpt.config import Config, load_config
from vpt.config.run import BackboneConfig
from vpt.engine.methods import Method
from vpt.sections import PROMPTS
from vpt.vocabulary import Task


@dataclass(frozen=True)
class Trial:
    """One training. name: of its folder below the method's; settings: what is tried; final: with a seed, and tested."""

    method: str
    name: str
    settings: Mapping[str, Any]
    seed: int = 0
    final: bool = False


def config_of(trial: Trial, method: Method, base: Config, task: Task) -> Config:
    """The base's, with the method's own prompts, tuning and head, so that nothing else of these differs."""
    overrides = {**trial.settings, "seed": trial.seed}
    overrides["data.use_val"] = trial.final and base.data.shots is None  # few shots stay few
    overrides["train.validate_every"] = base.train.epochs
    values = base.model_dump(mode="json")
    values["tuning"] = {"method": "prompts"}
    if base.head is not None and base.head.partner:
        values["head"] = None  # it reads the base's prompts alone
    if task == "classification" and "head" in method.settings and values["head"]:
        overrides["head.pool"] = values["head"]["pool"]
    values |= {key: dict(value) for key, value in method.settings.items()}
    if PROMPTS.section(values["prompts"]["method"]).partner:
        values["head"] = None  # which is theirs
    if "backbone" in method.settings:
        values["backbone"]["options"] = _images(base.backbone)
    return load_config(values, overrides)


def _images(own: BackboneConfig) -> dict[str, Any]:
    """For a method without an encoder: the images as all others are given them, by the same plan."""
    return in_place_of(describe_backbone(own.name, weights=own.weights, **own.options))

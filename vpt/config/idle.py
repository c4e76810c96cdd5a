"""Settings that were given and change nothing in a run: whoever gave one meant something by it, so it is told."""

from __future__ import annotations

from collections.abc import Set

from vpt.config.run import BACKBONE_RATE, ResolvedConfig

OF_PROMPTS = {"prompts", "trigger"}  # parts with their rate


def idle_settings(
    config: ResolvedConfig, trained: Set[str], *, pictures: bool, fixed: bool, in_folds: bool
) -> list[str]:
    """A sentence for each of them.

    Args:
        trained: the parts of the model that train, as `PromptedModel.count_parameters` calls them.
        pictures: whether the data are images, not volumes.
        fixed: whether every sample looks the same whenever it is drawn.
        in_folds: whether the sides are those of a fold.
    """
    method, unprompted = config.optim.method, not OF_PROMPTS & trained
    whys = (
        ("optim.momentum", method != "sgd", f"{method} has none, optim.method=sgd has"),
        ("optim.prompt_lr", unprompted, "no prompts are trained"),
        ("optim.prompt_weight_decay", unprompted, "no prompts are trained"),
        ("optim.backbone_lr", "backbone" not in trained, "nothing of the encoder is trained, see tuning.method"),
        ("train.patience", config.data.use_val, "nothing validates with data.use_val=true"),
        ("train.views", fixed, "every sample looks the same whenever it is drawn"),
        ("plan.slices", pictures, "images have no slices"),
        ("data.folds", not in_folds, "the sides are the data set's own; with data.fold=0 they are drawn"),
    )
    return [
        f"{key}={value} changes nothing: {why}"
        for key, idle, why in whys
        if idle and (value := _value(config, key)) != _usual(config, key)
    ]


def _value(config: ResolvedConfig, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _usual(config: ResolvedConfig, key: str) -> object:
    """What it is where nobody sets it."""
    section, _, name = key.partition(".")
    if key == "optim.backbone_lr":
        return BACKBONE_RATE
    return type(getattr(config, section)).model_fields[name].default

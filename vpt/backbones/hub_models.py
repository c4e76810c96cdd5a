"""timm's models in anyone's repository on the Hugging Face hub, and licences that are said before a download."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import timm
import torch

from vpt.backbones.base import Backbone, BackboneSpec, require_colours
from vpt.backbones.fetch import hub_or_its_cache, in_cache, offline, why_not
from vpt.backbones.origin import UNKNOWN, Origin
from vpt.backbones.vit_models import (
    Size,
    Timm,
    adapter_of,
    is_timm,
    origin_of_timm,
    prepared_as,
    saved,
    spec_of,
    wrapped,
)
from vpt.backbones.weights import RANDOM, load_weights
from vpt.errors import VptError, VptWarning
from vpt.progress import Tick

HUB = ("hf-hub:", "hf_hub:")
FREE = ("apache-2.0", "Apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "as its model card says", UNKNOWN)


def is_hub(name: str) -> bool:
    return name.startswith(HUB)


def load_hub(name: str, weights: str | Path | None, image_size: Size | None, **options: Any) -> Backbone:
    """`hf-hub:OWNER/NAME`, built by the config that lies there; weights, options: as of timm's names."""
    vit = _built(name, pretrained=weights is None)
    if weights not in (None, RANDOM):
        load_weights(vit, str(weights), name)
    return wrapped(prepared_as(vit, weights), name, image_size, **options)


def describe_hub(name: str, weights: str | Path | None, **options: Any) -> BackboneSpec:
    with torch.device("meta"):
        return spec_of(prepared_as(_built(name, pretrained=False), weights), name, **options)


def fetch_hub(name: str, to: Path, progress: Tick) -> Path:
    """A folder of the repository's own name, which `load_backbone` takes without a network."""
    return saved(to / _repository(name).rpartition("/")[2], lambda: _built(name, pretrained=True))


def origin_of_hub(name: str) -> Origin:
    """Of timm's own repositories timm knows the licence."""
    owner, _, model = _repository(name).partition("/")
    licence = origin_of_timm(model).licence if owner == "timm" and is_timm(model) else "as its model card says"
    return Origin(f"{_repository(name)} on the Hugging Face hub", licence)


def say_licence(name: str, licence: str) -> None:
    """Warn (`VptWarning`) of one that is none of the usual, where the weights of that name are yet to be fetched."""
    if licence not in FREE and not offline() and _would_download(name):
        warnings.warn(
            f"{name}: its weights are fetched, under the licence {licence}; read it before you use them",
            VptWarning,
            stacklevel=3,
        )


def _would_download(name: str) -> bool:
    if is_hub(name):
        return not in_cache(_repository(name))
    known: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(known and known.hf_hub_id) and not in_cache(known.hf_hub_id)


def _repository(name: str) -> str:
    return name.partition(":")[2].partition("@")[0]


def _built(name: str, pretrained: bool) -> Timm:
    try:
        with torch.random.fork_rng(devices=[]), hub_or_its_cache():
            torch.default_generator.manual_seed(0)
            vit: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub's client raises a dozen kinds for one meaning
        raise VptError(
            f"backbone {name}: cannot be had from the hub ({why_not(error)}); expected hf-hub:OWNER/NAME of a model "
            "that timm saved there; without a network give a folder as the backbone (`vpt fetch`)"
        ) from error
    adapter = adapter_of(vit)
    adapter.require_supported(vit, name)
    require_colours(vit, name)
    if not pretrained:
        adapter.wake(vit)
    return vit

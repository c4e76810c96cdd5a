"""Which encoders can be had by name, and why not the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import timm

from vpt.backbones.base import BackboneSpec
from vpt.backbones.families import Family, describe_backbone, others, published
from vpt.backbones.sam2_models import SAM2_CHECKPOINTS
from vpt.backbones.sam_models import CHECKPOINTS, SAM_MICRO
from vpt.backbones.tiny_vit_models import TINY_CHECKPOINTS
from vpt.backbones.vit_models import MICRO
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.words import did_you_mean

OWN = {MICRO: "of this package", SAM_MICRO: "of this package"}
SAM = dict.fromkeys((*CHECKPOINTS, *TINY_CHECKPOINTS), "Segment Anything")
SAM2 = dict.fromkeys(SAM2_CHECKPOINTS, "Segment Anything 2")
MODULES = {  # of timm: those of encoders made of blocks that attend
    "vision_transformer": "ViT",
    "deit": "DeiT",
    "eva": "EVA, DINOv3, Perception Encoder, rotary ViT",
    "beit": "BEiT",
    "vision_transformer_relpos": "ViT with relative positions",
    "vision_transformer_sam": "Segment Anything",
    "swin_transformer": "Swin",
    "swin_transformer_v2": "Swin v2",
    "swin_transformer_v2_cr": "Swin v2, another writing",
    "hiera": "Hiera",
    "hieradet_sam2": "Segment Anything 2",
    "tiny_vit": "TinyViT",
    "vision_transformer_hybrid": "ViT on a convolutional stem",
    "naflexvit": "NaFlexViT",
    "cait": "CaiT",
    "qwen3_vit": "Qwen3-VL, DeepSeek-V4: encoders of language models",
    "deepseek_vit": "Qwen3-VL, DeepSeek-V4: encoders of language models",
    "gemma4_vit": "Gemma 4",
}
OTHERS = "timm's others"


@dataclass(frozen=True)
class Entry:
    """An encoder that can be named. kind: whose; spec: None where it is refused; refused: why, "" where it is not."""

    name: str
    kind: str
    spec: BackboneSpec | None
    refused: str
    licence: str


def catalogue(pattern: str = "*", progress: Tick = silent) -> list[Entry]:
    """Every name of these kinds that fits a pattern (`*dinov3*`), described without weights in memory.

    Where none of them does, those of timm's other models that do, each with why it is refused.

    Raises:
        VptError: none fits.
    """
    kinds = {name: kind for name, kind in _kinds().items() if fnmatchcase(name, pattern)}
    kinds = kinds or dict.fromkeys(timm.list_models(pattern), OTHERS)
    if not kinds:
        hint = did_you_mean(pattern, _kinds()) or f"; `vpt backbones '*{pattern.strip('*')[:4]}*'` looks for more"
        raise VptError(f"{pattern}: no encoder is called so{hint}")
    found = []
    for number, (name, kind) in enumerate(kinds.items(), start=1):
        found.append(_entry(name, kind))
        progress(number, len(kinds), name)
    return found


def _kinds() -> dict[str, str]:
    of_timm = {name: kind for module, kind in MODULES.items() for name in timm.list_models(module=module)}
    return {name: family.name for family in others() for name in _names(family)} | OWN | SAM | SAM2 | of_timm


def _names(family: Family) -> list[str]:
    """Among the words that tell what a user may write, those that the family claims."""
    return [word for word in re.split(r"[\s,]+", family.names) if family.claims(word)]


def _entry(name: str, kind: str) -> Entry:
    try:
        return Entry(name, kind, describe_backbone(name), "", published(name).licence or "")
    except VptError as error:
        return Entry(name, kind, None, str(error).removeprefix(f"backbone {name}: "), "")

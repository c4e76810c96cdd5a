"""Frozen encoders by name: `load_backbone("vit_micro")`, any timm ViT, a folder on disk, Segment Anything."""

from vpt.backbones.base import Backbone, BackboneSpec, BlockSpec
from vpt.backbones.families import Family, describe_backbone, load_backbone, register_backbones
from vpt.backbones.tokens import Features, Tokens

__all__ = [
    "Backbone",
    "BackboneSpec",
    "BlockSpec",
    "Family",
    "Features",
    "Tokens",
    "describe_backbone",
    "load_backbone",
    "register_backbones",
]

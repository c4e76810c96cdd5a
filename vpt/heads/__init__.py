"""What reads the features: one file each, with its section of the config."""

from vpt.heads.base import Answer, Head, HeadSettings
from vpt.heads.linear import ClassifyHead
from vpt.heads.mask import MaskHead
from vpt.heads.sam_decoder import SamDecoderHead

__all__ = ["Answer", "ClassifyHead", "Head", "HeadSettings", "MaskHead", "SamDecoderHead"]

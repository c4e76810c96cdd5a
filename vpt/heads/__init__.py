"""What reads the features: one file each."""

from vpt.heads.base import Head
from vpt.heads.mask import MaskHead

__all__ = ["Head", "MaskHead"]

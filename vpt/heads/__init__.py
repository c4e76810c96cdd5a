"""What reads the features: one file each."""

from vpt.heads.mask import MaskHead

__all__ = ["MaskHead"]

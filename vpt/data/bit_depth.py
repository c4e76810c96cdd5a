"""Pictures of 16 bits for a model of 8: converted only where it is known which value is white."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vpt.readers import Voxels

WIDENED = (257, 256)  # what makes 16 bits of 8: 255 becomes 65535, or 65280


def in_8_bits(voxels: Voxels, white: float | None) -> Voxels:
    """A picture's channels with values to 255; as they are where that is so, or where white is not known.

    white: its value, if the file states it. Else all values are multiples of 257 or of 256, as 8 bits become when they
    are widened.
    """
    stored = [channel.stored for channel in voxels.channels]
    if max(float(part.max()) for part in stored) <= 255:
        return voxels
    found = [factor for factor in WIDENED if not any(np.mod(part, factor).any() for part in stored)]
    factor = white / 255 if white is not None else next(iter(found), None)
    if factor is None:
        return voxels
    return replace(voxels, channels=tuple(replace(channel, slope=1 / factor) for channel in voxels.channels))

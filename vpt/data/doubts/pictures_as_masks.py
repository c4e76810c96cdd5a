"""Masks that are the pictures themselves, saved in few colours, so that shades of the picture count as labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpt.data.cases import Case
from vpt.data.planned import spread
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.words import counted, listed

LOOKED_AT, FEWEST = 8, 3  # cases
SHADES = 4  # of a mask at least
ALIKE = 0.45  # of the image's variance, of which less is left without its mask as it is seen


def pictures_as_masks(cases: Sequence[Case]) -> list[str]:
    """Of cases of images: that their masks, as they are seen, look like the images; [] where one does not."""
    looked_at = spread([case for case in cases if case.label is not None], LOOKED_AT)[:LOOKED_AT]
    if len(looked_at) < FEWEST or not all(map(_is_its_picture, looked_at)):
        return []
    return [
        f"{counted(len(looked_at), 'mask')} that were compared with their images "
        f"({listed((case.name for case in looked_at), 3)}) look like these in few colours, so that shades would count "
        "as labels; give the masks in their place"
    ]


def _is_its_picture(case: Case) -> bool:
    try:
        image, mask = (_seen(path) for path in (case.images[0], case.files[-1]))
    except VptError:  # reading the case says why
        return False
    if image.shape != mask.shape or (mask == mask[:1]).all():
        return False  # grey is no colour of its own: labels of a scan may be as bright as it
    left = sum(((one - other) ** 2).mean() for one, other in zip(image, mask, strict=True))
    alike = left < ALIKE * sum(channel.var() for channel in image)
    return bool(alike and _count_colours(mask) >= SHADES)  # counted last, which takes seconds of a large picture


def _count_colours(seen: np.ndarray) -> int:
    return len(np.unique(seen.reshape(len(seen), -1), axis=1).T)


def _seen(path: Path) -> np.ndarray:
    """A picture as it is seen (3, X, Y), float32."""
    return np.stack([channel.values(channel.stored)[..., 0] for channel in reader_of(path).voxels(3).channels])

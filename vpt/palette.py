"""Colours of labels: told apart by colour-blind eyes, and seen on grey scans and on pink endoscopy alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

LABELS = ("#4cc9ff", "#ffd93d", "#3ddc97", "#ff9e4a", "#c9a2ff", "#ffffff", "#ff7096", "#8fa8ff")


def colours_of(labels: Iterable[int]) -> dict[int, str]:
    """Label id -> its colour, the background apart; the same in all pictures of a data set."""
    return dict(zip(sorted(set(labels) - {0}), itertools.cycle(LABELS)))


def lightened(colour: str) -> str:
    """A hex colour, two thirds of the way to white."""
    return "#" + "".join(f"{(int(colour[k : k + 2], 16) + 2 * 255) // 3:02x}" for k in (1, 3, 5))


def darkened(colour: str) -> str:
    """A hex colour, half of the way to black."""
    return "#" + "".join(f"{int(colour[k : k + 2], 16) // 2:02x}" for k in (1, 3, 5))

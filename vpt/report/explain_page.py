"""The page of `vpt explain`: which patches attend to which prompt, and what changes without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from vpt.report.overlays import encoded
from vpt.report.pages import render
from vpt.report.report_page import FactGroup
from vpt.words import counted

SIDE = 160  # px of a map
STRONGEST = 10
HIDDEN = (
    "those that attend most to prompts that help (each prompt's map counts as much as it adds; all alike where none "
    "adds anything, or that was not asked)"
)


class Looked(Protocol):
    """What every explanation says: of which image, and the score that is followed on it."""

    @property
    def case(self) -> str: ...

    @property
    def slice(self) -> int | None: ...

    @property
    def image(self) -> np.ndarray: ...

    @property
    def watched(self) -> str: ...

    @property
    def score(self) -> float: ...

    @property
    def hidden(self) -> Sequence[Any]: ...


class Told(Looked, Protocol):
    """What `vpt.use.explain.Explanation` says."""

    @property
    def prompts(self) -> Sequence[Any]: ...

    @property
    def alike(self) -> dict[int, np.ndarray]: ...

    @property
    def near(self) -> Any: ...

    @property
    def volumes(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class MapCard:
    """near: the training patches nearest to a prompt, two in a row, and what they are, the nearest first."""

    name: str
    said: str
    picture: str
    near: str = ""
    near_said: str = ""


@dataclass(frozen=True)
class MapGroup:
    title: str
    said: str
    cards: list[MapCard]


def explain_page(told: Told, facts: Sequence[FactGroup] = ()) -> str:
    """One file of HTML. facts: how to repeat it."""
    groups = [_block(told, i, list(group)) for i, group in groupby(told.prompts, lambda prompt: prompt.block)]
    known = [prompt for prompt in told.prompts if prompt.influence is not None]
    strongest = sorted(known, key=lambda prompt: -abs(prompt.influence))[:STRONGEST]
    return page_of(
        told,
        "Prompts",
        strongest=[(p.block, p.number, f"{p.influence:+z.4f}", f"{p.share:.2%}") for p in strongest],
        groups=groups,
        hidden_first=HIDDEN,
        hidden_columns=["most attending"],
        hidden=hidden_rows(told.hidden),
        searched=_searched(told.near),
        volumes=_volumes(told.volumes),
        facts=facts,
    )


def _searched(near: Any) -> str:
    """What was searched for patches, or why nothing was."""
    if isinstance(near, str):
        return "" if near == "not asked for" else f"No training patches: {near}."
    seen = counted(len(near.names), "training image")
    all_of = "all of them" if len(near.names) == near.of else f"drawn from {near.of} with seed 0"
    return (
        f"Under each map: of {seen} ({all_of}; of a volume one slice each) the patches whose keys in that block are "
        "nearest to the prompt's, of every image one, row by row, the nearest first; each stands in the middle of "
        "those around it, with its image and cosine below. "
        "Keys of all heads are compared as one vector, by their cosine, after the mean key of all patches is taken "
        "off: it adds the same to every score of a softmax. What lies near to a prompt draws the same queries; it need "
        "not attend to it."
    )


def _volumes(files: Sequence[Any]) -> str:
    if not files:
        return ""
    return (
        f"Attention over the whole scan lies in {files[0].parent.name}/, {counted(len(files), 'NIfTI file')} on the "
        f"scan's own grid ({files[0].name} and its like): mean of the heads, interpolated between patches."
    )


def page_of(told: Looked, what: str, **own: Any) -> str:
    """The page of an explanation; own: what differs between the kinds."""
    return render(
        "explain.html",
        title=f"{what} on {told.case}" + ("" if told.slice is None else f", slice {told.slice}"),
        score=f"{told.score:.3f}",
        watched=told.watched,
        image=encoded(enlarged(told.image, 2 * SIDE)),
        **{"searched": "", "volumes": "", **own},
    )


def hidden_rows(*curves: Sequence[Any]) -> list[list[str]]:
    """Of deletion curves of one image: what is hidden, each curve's score, that of random patches."""
    return [
        [f"{rows[0].share:.0%}", *(f"{each.most_attending:.3f}" for each in rows), f"{rows[0].random:.3f}"]
        for rows in zip(*curves, strict=True)
    ]


def _block(told: Told, block: int, prompts: list[Any]) -> MapGroup:
    share = sum(prompt.share for prompt in prompts)
    said = f"Patches give its {counted(len(prompts), 'prompt')} {share:.1%} of their attention"
    if (pair := _most_alike(told.alike.get(block))) is not None:
        said += f"; most alike are {pair[0]} and {pair[1]}, cosine {pair[2]:.2f}"
    return MapGroup(f"Block {block}", said, [_card(told, prompt) for prompt in prompts])


def _most_alike(cosines: np.ndarray | None) -> tuple[int, int, float] | None:
    if cosines is None or len(cosines) < 2:
        return None
    apart = cosines - 2 * np.eye(len(cosines))
    a, b = np.unravel_index(int(apart.argmax()), apart.shape)
    return int(min(a, b)), int(max(a, b)), float(cosines[a, b])


def _card(told: Told, prompt: Any) -> MapCard:
    weights = np.asarray(prompt.attention, np.float32)
    said = f"{prompt.share:.2%} of attention, {weights.min():.2%} to {weights.max():.2%}"
    if prompt.influence is not None:
        said += f"; without it {-prompt.influence:+z.4f}"
    near = () if isinstance(told.near, str) else told.near.found[prompt.block, prompt.number]
    return MapCard(f"prompt {prompt.number}", said, encoded(over(told.image, weights)), *_nearest(near))


def _nearest(near: Sequence[Any]) -> tuple[str, str]:
    if not near:
        return "", ""
    side, squares = SIDE // 2, np.ones((-(-len(near) // 2), 2, SIDE // 2, SIDE // 2, 3), np.float32)
    for place, each in enumerate(near):
        squares[divmod(place, 2)] = _square(each.crop, side)
    words = "; ".join(f"{each.where}: {each.cosine:.2f}" for each in near)
    return encoded(squares.swapaxes(1, 2).reshape(-1, SIDE, 3)), words


def _square(crop: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3), with a line around the middle third."""
    import cv2

    colours = crop if crop.ndim == 3 else np.repeat(crop[..., None], 3, -1)
    square = cv2.resize(np.ascontiguousarray(colours, np.float32), (side, side), interpolation=cv2.INTER_AREA)
    low, high = side // 3 - 1, side - side // 3
    cv2.rectangle(square, (low, low), (high, high), (1.0, 0.85, 0.0), 1)
    return square


def over(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The image in grey under a map from its least to its largest weight, (SIDE, SIDE, 3)."""
    import matplotlib

    grey = enlarged(image.mean(-1) if image.ndim == 3 else image, SIDE)[..., None]
    low, high = float(weights.min()), float(weights.max())
    scaled = enlarged((weights - low) / max(high - low, 1e-12), SIDE)
    colours = matplotlib.colormaps["viridis"](scaled)[..., :3]
    return np.clip(0.6 * grey + 0.7 * colours * scaled[..., None], 0, 1)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(np.ascontiguousarray(image, np.float32), size, interpolation=cv2.INTER_LINEAR)

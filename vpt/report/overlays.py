"""A plane of a case as a picture with outlines over it, which hide nothing: what a template needs to draw it as SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vpt.report.cuts import Cut, Letters
from vpt.words import counted

HEIGHT = 240.0  # of every panel in the units of its drawing, so that what is written is of one size in a row
MOST_PIXELS = 420  # of a picture's longer side
LOW, RAISED = 10.0, 30.0  # how high the scale bar is, and how high where it would touch the letter in the middle
GLYPH = 9.0  # of the units of a drawing that a character of its words is wide
SHARP = 0.3  # of a unit: how far an outline may be from where it is
QUALITY = 84


Whose = Literal["truth", "found"]


@dataclass(frozen=True)
class Outline:
    """The border of one label: its SVG path, its colour, and whose it is."""

    path: str
    colour: str
    whose: Whose


@dataclass(frozen=True)
class ScaleBar:
    """length: in units of the drawing; height: of its line above the lower edge."""

    length: float
    words: str
    height: float


@dataclass(frozen=True)
class Panel:
    """A plane that is ready to be drawn. missed, added, taken: paths of what is in the truth alone, in the prediction
    alone, and in both as different labels; errors: their pixels; picture: a data URI.
    """

    name: str
    caption: str
    alt: str
    width: float
    height: float
    picture: str
    outlines: tuple[Outline, ...]
    missed: str
    added: str
    taken: str
    letters: Letters | None
    bar: ScaleBar
    errors: int

    @property
    def ratio(self) -> float:
        return self.width / self.height


def draw_panel(cut: Cut, colours: Mapping[int, str], case: str) -> Panel:
    """colours: label id -> colour; others are not drawn."""
    height, width = (count * size for count, size in zip(cut.image.shape, cut.pixel, strict=False))
    scale = HEIGHT / height
    size = (width * scale, height * scale)
    image, truth, found = _smaller(cut)
    none = np.zeros(image.shape[:2], np.uint8)
    true, predicted = (none if ids is None else ids for ids in (truth, found))
    both = truth is not None and found is not None
    return Panel(
        name=cut.name,
        caption=", ".join(filter(None, [cut.name, cut.place])),
        alt=_alt(cut, case),
        width=round(size[0], 1),
        height=round(size[1], 1),
        picture=encoded(image),
        outlines=(*_outlines(true, colours, "truth", size), *_outlines(predicted, colours, "found", size)),
        missed=path_of((true > 0) & (predicted == 0), size) if both else "",
        added=path_of((true == 0) & (predicted > 0), size) if both else "",
        taken=path_of((true > 0) & (predicted > 0) & (true != predicted), size) if both else "",
        letters=cut.letters,
        bar=_bar(width, scale, cut.unit),
        errors=cut.errors,
    )


def encoded(image: np.ndarray) -> str:
    """(rows, columns) or (rows, columns, 3) in [0, 1] -> a data URI, small pictures without loss."""
    import cv2

    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    seen = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    small = max(pixels.shape[:2]) <= 128
    options = [] if small else [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
    data = cv2.imencode(".png" if small else ".webp", np.ascontiguousarray(seen), options)[1]
    return as_uri(bytes(data), "png" if small else "webp")


def as_uri(picture: bytes, form: str) -> str:
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"


def path_of(mask: np.ndarray, size: tuple[float, float]) -> str:
    """The closed outlines of a mask (rows, columns), holes too, in a drawing of that width and height."""
    if not mask.any():
        return ""
    import cv2
    from contourpy import contour_generator

    rows, columns = mask.shape
    scale = np.array([size[0] / columns, size[1] / rows])
    lines = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    parts = []
    for line in lines:
        drawn = ((np.asarray(line) - 0.5) * scale).astype(np.float32)
        kept = cv2.approxPolyDP(drawn[:-1], SHARP, True)[:, 0]
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in kept.tolist()) + "Z")
    return "".join(parts)


def _smaller(cut: Cut) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Image and labels with sides of `MOST_PIXELS` at most; labels are picked, not mixed."""
    rows, columns = cut.image.shape[:2]
    if max(rows, columns) <= MOST_PIXELS:
        return cut.image, cut.truth, cut.found
    import cv2

    share = MOST_PIXELS / max(rows, columns)
    height, width = max(1, round(rows * share)), max(1, round(columns * share))
    image = cv2.resize(np.ascontiguousarray(cut.image, np.float32), (width, height), interpolation=cv2.INTER_AREA)
    down, across = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in ((height, rows), (width, columns)))
    truth, found = (None if ids is None else ids[down][:, across] for ids in (cut.truth, cut.found))
    return image, truth, found


def _outlines(ids: np.ndarray, colours: Mapping[int, str], whose: Whose, size: tuple[float, float]) -> list[Outline]:
    present = [int(id) for id in np.unique(ids) if int(id) in colours]
    return [Outline(path_of(ids == id, size), colours[id], whose) for id in present]


def bar_length(width: float) -> float:
    """A round length of about a quarter of the width."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= width / 4)


def _bar(width: float, scale: float, unit: str) -> ScaleBar:
    length = bar_length(width)
    words = f"{length:g} {unit}"
    room = width * scale / 2 - 10 - GLYPH  # up to the letter
    fits = max(length * scale, GLYPH * len(words)) < room
    return ScaleBar(round(length * scale, 1), words, LOW if fits else RAISED)


def _alt(cut: Cut, case: str) -> str:
    what = {
        (True, True): "outlines of the truth, solid, and of the prediction, dashed",
        (True, False): "outlines of the truth",
        (False, True): "outlines of the prediction",
        (False, False): "without labels",
    }[cut.truth is not None, cut.found is not None]
    pixels = (
        f"; they differ in {counted(cut.errors, 'pixel')}" if cut.truth is not None and cut.found is not None else ""
    )
    return f"{case}, {', '.join(filter(None, [cut.name, cut.place]))}: {what}{pixels}"

"""What image and mask say only beside each other: a mask that lies turned, or is another case's, and one that is drawn
into its image.

Where a mask is right, its edges lie where the image changes more than elsewhere. Where that is so of the mask mirrored
or turned, or of the next case's, in nearly all cases, and less so of the mask as it is, it lies wrong. Where it is no
more so of the masks as they are than of other cases', they may be anyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.cases import Case
from vpt.data.doubts.mask_values import some_slices
from vpt.readers import Kind
from vpt.words import agreeing, counted, listed

LOOKED_AT: dict[Kind, int] = {"images": 40, "volumes": 12}  # cases, evenly spread
SAMPLE = 4096  # changes of a slice, with which those at the edges are compared
FEWEST, FEWEST_CASES = 40, 8  # pixels of edges in a mask, and cases; of fewer nothing is told
NEARLY_ALL, BETTER, CERTAIN = 0.85, 0.04, 5.0  # of the cases; by that rank on average, and so many of its errors
ENOUGH, AT_CHANCE, NO_GAIN, SEEN = 12, 0.6, 0.015, 0.53  # cases; how often and by how much better; the fit as it is
PART, FAR = 0.2, 0.15  # of the cases, where a mask lies so much better turned
INSIDE, OUTSIDE = 0.99, 0.005  # of the labelled pixels that have one value, and of the others
NEXT, PREVIOUS = "next", "previous"  # cases, whose masks are compared too

Turn = Callable[[np.ndarray], np.ndarray]
TURNS: dict[str, Turn] = {  # of (X, Y, Z), of which Z is kept; what has to be done to the masks
    "mirrored left to right": lambda labels: labels[::-1],
    "mirrored top to bottom": lambda labels: labels[:, ::-1],
    "turned by 180 degrees": lambda labels: labels[::-1, ::-1],
    "turned by 90 degrees to the right": lambda labels: labels.swapaxes(0, 1)[::-1],
    "turned by 90 degrees to the left": lambda labels: labels.swapaxes(0, 1)[:, ::-1],
    "transposed": lambda labels: labels.swapaxes(0, 1),
    "transposed and turned by 180 degrees": lambda labels: labels.swapaxes(0, 1)[::-1, ::-1],
}
OF_VOLUMES: dict[str, Turn] = {
    "reversed along the third axis": lambda labels: labels[..., ::-1],
    "reversed along the first and third axes": lambda labels: labels[::-1, :, ::-1],
    "reversed along the second and third axes": lambda labels: labels[:, ::-1, ::-1],
    "reversed along all axes": lambda labels: labels[::-1, ::-1, ::-1],
}
IN_VOLUMES = {
    "mirrored left to right": "reversed along the first axis",
    "mirrored top to bottom": "reversed along the second axis",
    "turned by 180 degrees": "reversed along the first and second axes",
}
DRAWN = {
    "filled": "one value on all that is labelled, and nowhere else, so that the labels can be read off the {images}",
    "masked": "one value on all that is not labelled, and not on what is, so that the labels can be read off them",
    "outlined": "one value along the edges of the labels, and hardly elsewhere, as where outlines were drawn in",
}


@dataclass(frozen=True)
class Beside:
    """Of one case: how its mask fits, as it is ("") and turned (0.5: as anywhere, 1: on the largest changes); drawn:
    how the image shows its labels, "" where it does not.
    """

    case: str
    fits: Mapping[str, float]
    drawn: str = ""


def beside(
    case: str, image: np.ndarray, labels: np.ndarray, kind: Kind, others: Mapping[str, np.ndarray] | None = None
) -> Beside | None:
    """An image (C, X, Y, Z) and its mask (X, Y, Z), None where that is empty; others: masks of the cases beside it."""
    held = some_slices(labels)
    if not labels.any():
        return None
    ranks = [_ranks(image[..., k]) for k in held]
    turned = {"": labels} | {name: turn(labels) for name, turn in TURNS.items()}
    if kind == "volumes":
        turned |= {name: turn(labels) for name, turn in OF_VOLUMES.items()}
    turned |= others or {}
    fits = {name: _fit(each, held, ranks) for name, each in turned.items() if each.shape == labels.shape}
    return Beside(case, {name: fit for name, fit in fits.items() if np.isfinite(fit)}, _drawn(image, labels, held))


def misplaced(cases: Sequence[Beside], kind: Kind) -> Iterator[str]:
    """Sentences about masks that fit their images better when they are turned, or those of the case before."""
    names = dict.fromkeys(name for each in cases for name in each.fits if name)
    found = {name: _gains(name, cases) for name in names}
    all_over = {name: float(gains.mean()) for name, gains in found.items() if _is_better(gains)}
    if all_over:
        best = max(all_over, key=lambda name: all_over[name])
        better = int((found[best] > 0).sum())
        yield f"{better} of {counted(len(found[best]), 'mask')} that were compared {_told(best, kind)}"
        return
    for name, gains in found.items():
        odd = [each.case for each in cases if _gain(name, each) > FAR]
        if name not in (NEXT, PREVIOUS) and len(gains) >= FEWEST_CASES and len(odd) >= max(3, PART * len(gains)):
            some = f"{len(odd)} of {counted(len(gains), 'mask')} that were compared ({listed(odd, 3)})"
            yield f"{some} {_told(name, kind)}"
            return
    if text := _as_others(cases):
        yield text


def _as_others(cases: Sequence[Beside]) -> str:
    """That masks fit no better than those of the cases beside them, as where pairs were shuffled; "" where they do."""
    pairs = [(each, name) for each in cases for name in (NEXT, PREVIOUS) if {"", name} <= each.fits.keys()]
    gains: dict[str, list[float]] = {}
    for each, name in pairs:
        if gain := _gain(name, each):  # 0 of masks that are the same
            gains.setdefault(each.case, []).append(-gain)
    by_case = np.array([np.mean(its) for its in gains.values()])
    if len(by_case) < ENOUGH or by_case.mean() > NO_GAIN or (by_case > 0).mean() > AT_CHANCE:
        return ""
    if np.mean([each.fits[""] for each, _ in pairs]) < SEEN:  # edges that cannot be seen at all
        return ""
    return (
        f"{counted(len(by_case), 'mask')} that were compared fit their own images no better, edge on edge, than those "
        "of other cases; are images and masks paired rightly? Look at them (vpt check DATA --html page.html), and name "
        "each mask after its image"
    )


def drawn_in(cases: Sequence[Beside], kind: Kind) -> Iterator[str]:
    """A sentence about images that show their labels by a value of their own."""
    for how, said in DRAWN.items():
        odd = [each.case for each in cases if each.drawn == how]
        if len(odd) >= max(3, 0.5 * len(cases)):
            images = "images" if kind == "images" else "scans"
            yield (
                f"{len(odd)} of {counted(len(cases), images[:-1])} that were compared with their masks "
                f"({listed(odd, 3)}) {agreeing(len(odd), 'have')} {said.format(images=images)}; give the {images} as "
                "they were before that"
            )


def _told(name: str, kind: Kind) -> str:
    if name in (NEXT, PREVIOUS):
        where = "before" if name == NEXT else "after"
        return (
            f"fit the image {where} theirs better than their own, edge on edge; are images and masks paired in the "
            "wrong order? Then name each mask after its image"
        )
    name = IN_VOLUMES.get(name, name) if kind == "volumes" else name
    turned = "the images turned and the masks not" if kind == "images" else "they saved in another order of voxels"
    return (
        f"fit their {'images' if kind == 'images' else 'scans'} better {name}, edge on edge; were {turned}? Look at "
        "them (vpt check DATA --html page.html), and write both alike"
    )


def compared(cases: Sequence[Case], kind: Kind) -> dict[str, dict[str, Case]]:
    """The cases that are looked at, evenly spread, each with those beside it."""
    step = max(1, -(-len(cases) // LOOKED_AT[kind]))
    found: dict[str, dict[str, Case]] = {}
    for k in range(0, len(cases), step):
        near = {NEXT: cases[k + 1]} if k + 1 < len(cases) else {}
        found[cases[k].name] = near | ({PREVIOUS: cases[k - 1]} if k else {})
    return found


def _gain(name: str, case: Beside) -> float:
    """By how much the mask fits better so than as it is; below 0 where it does not, or was not compared."""
    return case.fits[name] - case.fits[""] if name in case.fits and "" in case.fits else -1.0


def _gains(name: str, cases: Sequence[Beside]) -> np.ndarray:
    return np.array([_gain(name, each) for each in cases if name in each.fits and "" in each.fits])


def _is_better(gains: np.ndarray) -> bool:
    if len(gains) < FEWEST_CASES or (gains > 0).mean() < NEARLY_ALL or gains.mean() < BETTER:
        return False
    return bool(gains.mean() > CERTAIN * gains.std(ddof=1) / len(gains) ** 0.5)


def _ranks(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much (C, X, Y) changes from pixel to pixel (X - 1, Y - 1), and a sample of it, sorted."""
    plane = plane.astype(np.float32)
    along = np.abs(np.diff(plane, axis=1))[:, :, :-1] + np.abs(np.diff(plane, axis=2))[:, :-1]
    spread = plane.std(axis=(1, 2), keepdims=True)
    change = (along / np.where(spread > 0, spread, 1)).sum(axis=0)
    step = max(1, change.size // SAMPLE)
    return change, np.sort(change.ravel()[::step])


def _fit(labels: np.ndarray, held: Sequence[int], ranks: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean rank of the changes at the edges of a mask, of 0 to 1; NaN of one with hardly an edge."""
    found = []
    for k, (change, sample) in zip(held, ranks, strict=True):
        plane = labels[..., k]
        edge = (plane[1:, :-1] != plane[:-1, :-1]) | (plane[:-1, 1:] != plane[:-1, :-1])
        at = change[edge]
        low, high = (np.searchsorted(sample, at, side=side) for side in ("left", "right"))
        found.append((low + high) / (2 * len(sample)))
    every = np.concatenate(found)
    return float(every.mean()) if every.size >= FEWEST else float("nan")


def _drawn(image: np.ndarray, labels: np.ndarray, held: Sequence[int]) -> str:
    """How one of the image's channels, or its colours together, show the labels."""
    inside = labels[..., held] > 0
    if inside.sum() < FEWEST or (~inside).sum() < FEWEST:
        return ""
    planes = image[..., held]
    if len(planes) == 3 and planes.dtype == np.uint8:
        planes = (planes.astype(np.int64) * np.array([1 << 16, 1 << 8, 1])[:, None, None, None]).sum(0, keepdims=True)
    several = len(np.unique(labels[..., held])) > 2
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] & ~inside[:-1]
    edge[:-1] |= inside[:-1] & ~inside[1:]
    edge[:, 1:] |= inside[:, 1:] & ~inside[:, :-1]
    edge[:, :-1] |= inside[:, :-1] & ~inside[:, 1:]
    for channel in planes:
        if _has_alone(channel, inside):
            return "filled"
        if not several and _has_alone(channel, ~inside):
            return "masked"
        if edge.sum() >= FEWEST and _has_alone(channel, edge):
            return "outlined"
    return ""


def _has_alone(channel: np.ndarray, where: np.ndarray) -> bool:
    """Whether nearly all of it has one value there, and nearly nothing elsewhere."""
    values, counts = np.unique(channel[where][:: max(1, int(where.sum()) // SAMPLE)], return_counts=True)
    most = values[counts.argmax()]
    same = channel == most
    return bool(same[where].mean() >= INSIDE and same[~where].mean() <= OUTSIDE)

"""What `vpt explain` looks at: one image of a scan as the encoder is given it, and the score that is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.data.framing import as_channels, as_float32, crop_or_pad, placement_of
from vpt.data.slices.slice_stacks import places_of_slices, prepare_stack
from vpt.errors import VptError
from vpt.explaining import Score
from vpt.progress import silent
from vpt.readers import Scan, reader_of
from vpt.tasks.classification import to_probabilities
from vpt.use.classifier import Classifier
from vpt.use.inference import read_scan
from vpt.use.prepared_scan import PreparedScan
from vpt.use.segmenter import Segmenter

Watch = Callable[[Tensor], tuple[Score, str]]


@dataclass(frozen=True)
class Seen:
    """image: (1, C, S, S) in [0, 1]; watch: the logits of it -> the score to follow, and what that is in words."""

    name: str
    slice: int | None
    image: Tensor
    watch: Watch

    def told(self, more: str) -> Seen:
        """What is watched, with more words of what is followed."""

        def watch(logits: Tensor) -> tuple[Score, str]:
            score, words = self.watch(logits)
            return score, f"{words} ({more})"

        return replace(self, watch=watch)


def look_at(answers: Classifier | Segmenter, scan: Scan, slice: int | None, force: bool) -> Seen:
    """One image of a scan: of a volume that slice, or the one in which most is found.

    Raises:
        VptError: what the readers refuse; a slice that is not there, or of a classifier.
    """
    look = _of_scan if isinstance(answers, Segmenter) else _of_image
    return look(answers, scan, slice, force)  # type: ignore[arg-type]


def _of_image(classifier: Classifier, scan: Scan, slice: int | None, force: bool) -> Seen:
    """The middle one of a volume's slices, answered for by itself."""
    if slice is not None:
        raise VptError(
            f"slice {slice}: a classifier looks at the slices of its plan, and the middle one is told; leave it out"
        )
    middle, image = stack_image(classifier, scan, force)

    def watch(logits: Tensor) -> tuple[Score, str]:
        best = int(to_probabilities(logits, classifier.target, classifier.temperature)[0].argmax())

        def score(logits: Tensor) -> float:
            return float(to_probabilities(logits, classifier.target, classifier.temperature)[0, best])

        return score, f"the probability of {classifier.classes[best]}"

    return Seen(_name(scan), middle, image, watch)


def stack_image(classifier: Classifier, scan: Scan, force: bool) -> tuple[int | None, Tensor]:
    """The middle of the slices that it is given of a volume, with its number in that; or the image.

    (1, C, S, S) in [0, 1].
    """
    plan, voxels = classifier.plan, read_scan(classifier.plan, scan, force).voxels
    stack = prepare_stack(voxels, plan)
    middle = len(stack) // 2
    image = torch.from_numpy(stack[middle : middle + 1]).float() / 255
    if plan.kind == "images":
        return None, image
    depth = voxels.grid.turned(plan.orientation)[1].shape[0]
    return int(places_of_slices(depth, len(stack))[middle]), image


def _of_scan(segmenter: Segmenter, scan: Scan, slice: int | None, force: bool) -> Seen:
    prepared = segmenter.prepare(scan, force)
    depth, first = prepared.part.shape[0], first_slice(prepared)
    if slice is not None and not 0 <= slice < depth:
        raise VptError(f"{prepared.reader.name}: no slice {slice}; it has {depth}, from 0 on")
    found = segmenter.classes_of(prepared, None, silent)
    if slice is not None and not first <= slice < first + len(found):
        raise VptError(
            f"{prepared.reader.name}: slice {slice} is cut off with what is not foreground (plan.crop), so the model "
            f"never sees it; give one from {first} to {first + len(found) - 1}"
        )
    per_slice = (found > 0).reshape(len(found), -1).sum(1)
    most = int(per_slice.argmax()) if per_slice.any() else len(found) // 2
    place = most if slice is None else slice - first
    image = slice_image(segmenter, prepared, place, found[place] > 0)
    return Seen(_name(scan), first + place if depth > 1 else None, image, _watch_mask)


def first_slice(prepared: PreparedScan) -> int:
    """The number in the whole scan, along the plan's axis, of the first of the prepared slices."""
    return prepared.part.box[0].start


def slice_image(segmenter: Segmenter, prepared: PreparedScan, place: int, found: np.ndarray) -> Tensor:
    """A slice of a prepared scan, of a larger one the square with what was `found` in its middle, or its own middle.

    (1, C, S, S) in [0, 1], as the encoder is given it; found: (rows, columns) bool.
    """
    plan, below = segmenter.plan, max(place - 1, 0)
    part = prepared.slices[below : place + 2]
    image = as_float32(as_channels(part, place - below, plan.neighbours)[None])
    placement = placement_of(tuple(image.shape[-2:]), plan)  # type: ignore[arg-type]
    framed = placement.pad(image.numpy(), plan.around)
    top, left = _window(found, framed.shape[-2:], plan.image_size)
    return torch.from_numpy(crop_or_pad(framed, plan.image_size, top, left, plan.around))


def _window(found: np.ndarray, size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Corner of the square of a larger image that has what was found in its middle."""
    places = np.argwhere(found)
    middle = (places.mean(0) + 0.5) / found.shape if len(places) else np.full(2, 0.5)
    wanted = [round(share * length - side / 2) for share, length in zip(middle, size, strict=True)]
    top, left = (min(max(at, 0), length - side) for at, length in zip(wanted, size, strict=True))
    return top, left


def _watch_mask(logits: Tensor) -> tuple[Score, str]:
    """The mean probability, over the pixels in which something is found, of what is found there."""
    classes = logits[0].argmax(0)
    counts = classes > 0
    words = "the mean probability of what is found, over its pixels"
    if not counts.any():
        counts, words = torch.ones_like(counts), "the mean probability of background, where nothing is found"

    def score(logits: Tensor) -> float:
        own = logits[0].softmax(0).gather(0, classes[None])[0]
        return float(own[counts].mean())

    return score, words


def shown(image: Tensor) -> np.ndarray:
    """(1, C, S, S) -> what a person is shown of it: colour, or the first channel in grey."""
    channels = image[0].numpy()
    if len(channels) == 3 and not (
        np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2])
    ):
        return channels.transpose(1, 2, 0)
    return channels[0]


def _name(scan: Scan) -> str:
    return Path(reader_of(scan).name).name

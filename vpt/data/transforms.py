"""Augmentation of slices, behind one small class so that albumentations can be replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from vpt.vocabulary import COLOURS, Mirror

Change = Literal["light", "strong"]
Strength = Literal["none"] | Change
BLACK = (0.0, 0.0, 0.0)
TURNS: dict[Mirror, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "vertical": ((), (-2,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}
"""The axes of (..., rows, columns) along which an image and its mirror images are turned."""


class Augment(Protocol):
    """Image (C, S, S) float32 in [0, 1] and label (S, S) -> the same, changed alike, the same for the same seed."""

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]: ...


def identity(image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return image, label


class Albumentations:
    """Shift, scale, rotation, shear; brightness, contrast, gamma, noise, blur; `strong` bends and erases as well.

    Nothing is mirrored, since a label may mean left or right: see `Mirrored`. What comes in from outside has the colour
    `fill`.
    """

    def __init__(self, strength: Change, fill: Sequence[float] = BLACK):
        self.pipeline = _pipeline([*_shapes(strength, tuple(fill)), *_values(), *_holes(strength)])

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = _applied(self.pipeline, image.transpose(1, 2, 0), label, seed)
        return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32), label


class ByChannel:
    """The same for images of several modalities (C, S, S): all move alike, and each has values changed of its own.

    What comes in from outside has the value `fill`, in every channel.
    """

    def __init__(self, strength: Change, fill: float = 0.0):
        self.shapes = _pipeline(_shapes(strength, fill))
        self.values = _pipeline(_values())
        self.holes = _pipeline(_holes(strength))

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        moved, erased, *own = np.random.SeedSequence(seed).generate_state(2 + len(image)).tolist()
        whole, label = _applied(self.shapes, image.transpose(1, 2, 0), label, moved)
        for channel, changed in enumerate(own):
            chosen = slice(channel, channel + 1)
            whole[..., chosen] = _applied(self.values, whole[..., chosen], label, changed)[0]
        whole, label = _applied(self.holes, whole, label, erased)
        return np.ascontiguousarray(whole.transpose(2, 0, 1), np.float32), label


class Mirrored:
    """Another augmentation, of the image or one of its mirror images, as likely as each other."""

    def __init__(self, augment: Augment, mirror: Mirror):
        self.augment = augment
        self.turns = TURNS[mirror]

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        turn = self.turns[np.random.default_rng((seed, len(self.turns))).integers(len(self.turns))]
        image, label = (np.ascontiguousarray(np.flip(array, turn)) for array in (image, label))
        return self.augment(image, label, seed)


def make_augment(strength: Strength, fill: Sequence[float] = BLACK, mirror: Mirror = "none") -> Augment:
    """fill: what the plan has around a slice in [0, 1], of each channel; where they are more than a colour's three
    they are modalities, and change their values each for itself.
    """
    augment: Augment = identity
    if strength != "none":
        augment = Albumentations(strength, fill) if len(fill) == COLOURS else ByChannel(strength, fill[0])
    return augment if mirror == "none" else Mirrored(augment, mirror)


def _pipeline(steps: Sequence[Any]) -> Any:
    import albumentations as A

    return A.Compose(list(steps))


def _applied(pipeline: Any, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (S, S, C) and label (S, S) through a pipeline, whose steps are seeded first."""
    for place, step in enumerate(pipeline.transforms):  # the pipeline would give the same seed to all of them
        step.set_random_seed(int(np.random.SeedSequence((seed, place)).generate_state(1)[0]))
    out = pipeline(image=np.ascontiguousarray(image), mask=label)
    return out["image"], out["mask"]


def _shapes(strength: Change, fill: float | tuple[float, ...]) -> list[Any]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for news when imported
    import albumentations as A
    import cv2

    strong = strength == "strong"
    affine = A.Affine(
        scale=(0.75, 1.3) if strong else (0.85, 1.18),
        translate_percent=(-0.1, 0.1) if strong else (-0.06, 0.06),
        rotate=(-30, 30) if strong else (-15, 15),
        shear=(-10, 10) if strong else (-5, 5),
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        fill=fill,
        p=0.8,
    )
    return [affine, A.ElasticTransform(alpha=30, sigma=5, p=0.3)] if strong else [affine]


def _values() -> list[Any]:
    import albumentations as A

    return [
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.25, p=0.5),
        A.RandomGamma(gamma_limit=(70, 140), p=0.3),
        A.GaussNoise(std_range=(0.01, 0.06), p=0.2),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.0), p=0.1),
    ]


def _holes(strength: Change) -> list[Any]:
    import albumentations as A

    if strength == "light":
        return []
    return [A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.05, 0.2), fill=0, p=0.2)]

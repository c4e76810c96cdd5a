"""Augmentation of slices, behind one small class so that albumentations can be replaced."""

from __future__ import annotations

import os
from typing import Any, Literal, Protocol

import numpy as np

Strength = Literal["none", "light", "strong"]
Mirror = Literal["none", "horizontal", "vertical", "both"]
TURNS: dict[Mirror, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "vertical": ((), (-2,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}
"""The axes of (..., rows, columns) along which an image and its mirror images are turned."""


class Augment(Protocol):
    """Image (3, S, S) float32 in [0, 1] and label (S, S) -> the same, changed alike, the same for the same seed."""

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]: ...


def identity(image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return image, label


class Albumentations:
    """Shift, scale, rotation, shear; brightness, contrast, gamma, noise, blur; `strong` bends and erases as well.

    Nothing is mirrored, since a label may mean left or right: see `Mirrored`. What comes in from outside has the colour
    `fill`.
    """

    def __init__(self, strength: Literal["light", "strong"], fill: tuple[float, float, float] = (0.0, 0.0, 0.0)):
        self.pipeline = _pipeline(strength, fill)

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        for place, step in enumerate(self.pipeline.transforms):  # the pipeline would give the same seed to all of them
            step.set_random_seed(int(np.random.SeedSequence((seed, place)).generate_state(1)[0]))
        out = self.pipeline(image=np.ascontiguousarray(image.transpose(1, 2, 0)), mask=label)
        return np.ascontiguousarray(out["image"].transpose(2, 0, 1), np.float32), out["mask"]


class Mirrored:
    """Another augmentation, of the image or one of its mirror images, as likely as each other."""

    def __init__(self, augment: Augment, mirror: Mirror):
        self.augment = augment
        self.turns = TURNS[mirror]

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        turn = self.turns[np.random.default_rng((seed, len(self.turns))).integers(len(self.turns))]
        image, label = (np.ascontiguousarray(np.flip(array, turn)) for array in (image, label))
        return self.augment(image, label, seed)


def make_augment(
    strength: Strength, fill: tuple[float, float, float] = (0.0, 0.0, 0.0), mirror: Mirror = "none"
) -> Augment:
    """fill: the plan's colour in [0, 1] around a slice."""
    augment: Augment = identity if strength == "none" else Albumentations(strength, fill)
    return augment if mirror == "none" else Mirrored(augment, mirror)


def _pipeline(strength: Literal["light", "strong"], fill: tuple[float, float, float]) -> Any:
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
    steps = [
        affine,
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.25, p=0.5),
        A.RandomGamma(gamma_limit=(70, 140), p=0.3),
        A.GaussNoise(std_range=(0.01, 0.06), p=0.2),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.0), p=0.1),
    ]
    if strong:
        steps.insert(1, A.ElasticTransform(alpha=30, sigma=5, p=0.3))
        steps.append(A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.05, 0.2), fill=0, p=0.2))
    return A.Compose(steps)

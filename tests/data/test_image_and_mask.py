"""Image and mask beside each other: masks that lie turned or are another case's, and images that show their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from vpt.data.check import check_dataset
from vpt.data.doubts.image_and_mask import OF_VOLUMES, TURNS, beside, misplaced
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import Splits

CASES = 12


def object_in(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture (rows, columns) of 8 bits with a bright thing off its centre, and the thing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    place, angle = (-0.45 + rng.uniform(-0.1, 0.1), -0.2 + rng.uniform(-0.1, 0.1)), rng.uniform(0, 0.5)
    along, across = (x - place[0]) * np.cos(angle) + (y - place[1]), (y - place[1]) * np.cos(angle) - (x - place[0])
    mask = (along / 0.5) ** 2 + (across / 0.25) ** 2 < 1
    texture = gaussian_filter(rng.normal(0, 60, (size, size)), 2) + rng.normal(0, 4, (size, size))
    return np.clip(90 + texture + 45 * mask, 1, 250).astype(np.uint8), mask


Change = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def pictures(root: Path, change: Change = lambda image, mask, k: (image, mask)) -> list[str]:
    """What `vpt check` says of twelve of them."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for k in range(CASES):
        image, mask = change(*object_in(k), k)
        Image.fromarray(np.ascontiguousarray(image)).save(root / f"images/{k:02d}.png")
        Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8) * 255).save(root / f"masks/{k:02d}.png")
    return [problem.text for problem in check_dataset(root).problems]


def volumes(root: Path, change: Change = lambda image, mask, k: (image, mask)) -> list[str]:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for k in range(CASES):
        image, mask = (np.stack(planes, -1) for planes in zip(*(object_in(9 * k + z) for z in range(5)), strict=True))
        mask[..., 4] = False
        image, mask = change(image.astype(np.int16), mask, k)
        for folder, array, name in (
            ("imagesTr", image, f"{k:02d}_0000"),
            ("labelsTr", mask.astype(np.uint8), f"{k:02d}"),
        ):
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), np.eye(4)), root / f"{folder}/{name}.nii.gz")
    (root / "dataset.json").write_text(
        '{"channel_names": {"0": "MR"}, "labels": {"background": 0, "thing": 1}, "file_ending": ".nii.gz"}'
    )
    return [problem.text for problem in check_dataset(root).problems]


# --- masks that lie elsewhere -----------------------------------------------------------------------------------------

TURNED = {
    "mirrored left to right": lambda mask: mask[:, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "turned by 90 degrees to the right": lambda mask: np.rot90(mask, 1),  # so that a turn to the right mends it
    "turned by 90 degrees to the left": lambda mask: np.rot90(mask, -1),
    "transposed": lambda mask: mask.T,
}


@pytest.mark.parametrize("how", TURNED)
def test_masks_that_were_turned_are_told_and_how(tmp_path: Path, how: str) -> None:
    told = pictures(tmp_path, lambda image, mask, k: (image, TURNED[how](mask)))
    assert [text for text in told if f"fit their images better {how}, edge on edge" in text]


@pytest.mark.parametrize("how", ["mirrored left to right", "turned by 180 degrees", "transposed"])
def test_images_that_were_turned_and_masks_that_were_not_in_a_half_of_the_cases(tmp_path: Path, how: str) -> None:
    told = pictures(tmp_path, lambda image, mask, k: (TURNED[how](image) if k % 2 else image, mask))
    assert [text for text in told if text.startswith(("5 of 12 masks", "6 of 12 masks")) and f"better {how}" in text]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mask: mask[::-1], "reversed along the first axis"),
        (lambda mask: mask[:, ::-1], "reversed along the second axis"),
        (lambda mask: mask[..., ::-1], "reversed along the third axis"),
        (lambda mask: mask[::-1, ::-1, ::-1], "reversed along all axes"),
        (lambda mask: mask.swapaxes(0, 1), "transposed"),
    ],
)
def test_label_maps_of_volumes_too(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    told = volumes(tmp_path, lambda image, mask, k: (image, change(mask)))
    assert [text for text in told if f"fit their scans better {said}" in text]


@pytest.mark.parametrize(("shift", "said"), [(1, "after"), (-1, "before")])
def test_masks_of_the_case_beside_are_told(tmp_path: Path, shift: int, said: str) -> None:
    told = pictures(tmp_path, lambda image, mask, k: (image, object_in((k + shift) % CASES)[1]))
    assert [text for text in told if f"fit the image {said} theirs better than their own" in text]


@pytest.mark.parametrize("seed", range(4))
def test_masks_of_cases_in_any_other_order_are_told(tmp_path: Path, seed: int) -> None:
    """Things of about one place, as organs and what a camera is pointed at are."""
    others = np.random.default_rng(seed).permutation(CASES)
    told = pictures(tmp_path, lambda image, mask, k: (image, object_in(int(others[k]))[1]))
    assert [text for text in told if "12 masks that were compared fit their own images no better" in text]


SOUND: dict[str, Change] = {
    "as they are": lambda image, mask, k: (image, mask),
    "both turned": lambda image, mask, k: (image.T, mask.T),
    "inverted": lambda image, mask, k: (255 - image, mask),
    "a thing that is mirrored in itself": lambda image, mask, k: (
        np.maximum(image, image[:, ::-1]),
        mask | mask[:, ::-1],
    ),
    "no edges at all": lambda image, mask, k: (np.random.default_rng(k).integers(1, 250, image.shape, np.uint8), mask),
    "drawn roughly": lambda image, mask, k: (image, binary_dilation(mask, iterations=2)),
    "some empty": lambda image, mask, k: (image, mask & (k % 3 > 0)),
    "one mask for all": lambda image, mask, k: (image, object_in(0)[1]),
    "in colours": lambda image, mask, k: (np.dstack([image, image // 2, image // 3]), mask),
}


@pytest.mark.parametrize("how", SOUND)
def test_masks_that_lie_right_are_not_doubted(tmp_path: Path, how: str) -> None:
    assert [text for text in pictures(tmp_path, SOUND[how]) if "edge on edge" in text or "one value" in text] == []


def test_volumes_that_lie_right_are_not_doubted(tmp_path: Path) -> None:
    assert [text for text in volumes(tmp_path) if "edge on edge" in text or "one value" in text] == []


@pytest.mark.parametrize("cases", [8, 12, 40])
def test_of_noise_nothing_is_told_in_many_draws(cases: int) -> None:
    """Images that say nothing of their masks: what is told of them would be chance."""
    rng = np.random.default_rng(0)
    for _ in range(600 // cases):
        fits = [
            beside(str(k), rng.normal(size=(1, 24, 24, 1)), object_in(k % 9, 24)[1][..., None], "images")
            for k in range(cases)
        ]
        assert list(misplaced([each for each in fits if each], "images")) == []


def test_turns_and_their_names_are_all_there_are() -> None:
    array = np.arange(27).reshape(3, 3, 3)
    assert len({turn(array).tobytes() for turn in (TURNS | OF_VOLUMES).values()} | {array.tobytes()}) == 12


@pytest.mark.parametrize(
    ("lay", "change", "said"),
    [
        (pictures, lambda image, mask, k: (image, mask[:, ::-1]), "better mirrored left to right"),
        (pictures, lambda image, mask, k: (image, mask.T), "better transposed"),
        (pictures, lambda image, mask, k: (np.where(mask, 255, image), mask), "can be read off"),
        (volumes, lambda image, mask, k: (image, mask[::-1]), "better reversed along the first axis"),
        (volumes, lambda image, mask, k: (np.where(mask, 3000, image), mask), "can be read off"),
        (pictures, lambda image, mask, k: (image, mask), ""),
        (volumes, lambda image, mask, k: (image, mask), ""),
    ],
)
def test_a_training_says_it_of_what_it_does_not_test(tmp_path: Path, lay: Callable, change: Change, said: str) -> None:
    lay(tmp_path, change)
    names = [f"{k:02d}" for k in range(CASES)]
    dataset = read_dataset(tmp_path)
    told = doubts_of(dataset, Splits(tuple(names[:8]), tuple(names[8:10]), tuple(names[10:])))
    found = [text for text in told if "compared" in text]
    assert [said in text and "of 10 " in text for text in found] == ([True] if said else [])


# --- images that show their labels ------------------------------------------------------------------------------------


def edge_of(mask: np.ndarray) -> np.ndarray:
    return mask & ~binary_erosion(mask)


DRAWN: dict[str, tuple[Change, str]] = {
    "white on it": (lambda image, mask, k: (np.where(mask, 255, image), mask), "on all that is labelled"),
    "black on it": (lambda image, mask, k: (np.where(mask, 0, image), mask), "on all that is labelled"),
    "red on it": (
        lambda image, mask, k: (np.where(mask[..., None], (255, 0, 0), np.dstack([image] * 3)).astype(np.uint8), mask),
        "on all that is labelled",
    ),
    "all else black": (lambda image, mask, k: (np.where(mask, image, 0), mask), "on all that is not labelled"),
    "a white outline": (lambda image, mask, k: (np.where(edge_of(mask), 255, image), mask), "along the edges"),
    "a green outline": (
        lambda image, mask, k: (
            np.where(edge_of(mask)[..., None], (0, 255, 0), np.dstack([image] * 3)).astype(np.uint8),
            mask,
        ),
        "along the edges",
    ),
}


@pytest.mark.parametrize("how", DRAWN)
def test_labels_that_are_drawn_into_the_images_are_told(tmp_path: Path, how: str) -> None:
    change, said = DRAWN[how]
    told = pictures(tmp_path, change)
    assert [text for text in told if text.startswith("12 of 12 images") and said in text]


@pytest.mark.parametrize(
    "change",
    [
        lambda image, mask, k: (np.where(mask, 3000, image), mask),
        lambda image, mask, k: (np.where(mask, image, 0), mask),
        lambda image, mask, k: (np.where(mask, -1024, image), mask),
    ],
)
def test_those_of_volumes_too(tmp_path: Path, change: Change) -> None:
    assert [text for text in volumes(tmp_path, change) if "can be read off" in text]

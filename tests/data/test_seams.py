"""A label map of small ids that was resampled with interpolation is told by its seams, and thin labels are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vpt.data.check import check_dataset
from vpt.data.doubts.seams import interpolated, seams_of, thin_throughout

Draw = Callable[[int], np.ndarray]


def discs(number: int, labels: dict[int, int], shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    """(rows, columns) with a disc for each id -> radius, where `number` puts it."""
    rng = np.random.default_rng(number)
    y, x = np.indices(shape)
    found = np.zeros(shape, np.uint8)
    for id, radius in labels.items():
        centre = [rng.integers(radius, side - radius) for side in shape]
        found[np.hypot(y - centre[0], x - centre[1]) < radius * rng.uniform(0.8, 1)] = id
    return found


def ringed(number: int, inside: int, *rings: tuple[int, int]) -> np.ndarray:
    """A disc of `inside` with rings of (id, width) around it, from the innermost."""
    found = discs(number, {inside: 11})
    for id, width in rings:
        found[ndimage.binary_dilation(found > 0, iterations=width) & (found == 0)] = id
    return found


def turned(labels: np.ndarray, degrees: float = 13, order: int = 1) -> np.ndarray:
    return np.clip(np.rint(ndimage.rotate(labels.astype(float), degrees, order=order, reshape=False)), 0, 255)


def enlarged(labels: np.ndarray, times: float, how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    size = (round(labels.shape[1] * times), round(labels.shape[0] * times))
    return np.rint(np.array(Image.fromarray(labels.astype(np.float32)).resize(size, how)))


def doubts(draw: Draw, cases: int = 6) -> list[str]:
    masks = [draw(number).astype(np.int16) for number in range(cases)]
    return interpolated([seams_of(f"c{k}", mask.T[..., None], np.unique(mask)) for k, mask in enumerate(masks)])


RESAMPLED: dict[str, tuple[Draw, str]] = {
    "4 turned": (lambda k: turned(discs(k, {4: 12})), r"1, 2, 3 on .* from 0 to 4"),
    "3 turned": (lambda k: turned(discs(k, {3: 12}), 31), r"1, 2 on .* from 0 to 3"),
    "2 turned": (lambda k: turned(discs(k, {2: 12})), r"1 on .* from 0 to 2"),
    "1 and 4": (lambda k: turned(discs(k, {1: 10, 4: 12})), r"1, 2, 3 on .* from 0 to 4"),
    "four organs": (lambda k: turned(discs(k, {1: 9, 2: 9, 3: 9, 4: 9})), r"from 0 to [34]"),
    "a tumour in an organ": (lambda k: turned(discs(k, {1: 16}) + (discs(k, {1: 16}) & np.tri(64, 80, -5, np.uint8))),
                             r"1 on .* from 0 to 2"),
    "cubic": (lambda k: turned(discs(k, {7: 12}), order=3), r"from 0 to 7"),
    "larger": (lambda k: enlarged(discs(k, {4: 12}), 1.7), r"1, 2, 3 on 100% .* from 0 to 4"),
    "twice": (lambda k: enlarged(discs(k, {4: 12}), 2), r"from 0 to 4"),
    "three times": (lambda k: enlarged(discs(k, {3: 12}), 3), r"from 0 to 3"),
    "smaller": (lambda k: enlarged(discs(k, {4: 24}, (128, 160)), 0.6), r"from 0 to 4"),
    "some masks": (lambda k: turned(discs(k, {4: 12}), order=int(k % 3 == 0)), r"2 of 6 masks \(c0, c3\)"),
    "one mask": (lambda k: turned(discs(k, {5: 12})) if k == 3 else discs(k, {5: 12}), r"1 of 6 masks \(c3\)"),
}  # fmt: skip


@pytest.mark.parametrize("how", RESAMPLED)
def test_interpolation_leaves_seams(how: str) -> None:
    draw, said = RESAMPLED[how]

    (found,) = doubts(draw)

    assert re.search(said, found)
    assert found.endswith("Then do it again with nearest neighbour")


def layers(number: int) -> np.ndarray:
    """Layers that wave: 4 on 3 on 2 on 1, the second of one pixel."""
    found, columns = np.zeros((64, 80), np.uint8), np.arange(80)
    start = 20 + number + np.rint(4 * np.sin(columns / 7)).astype(int)
    for column, top in enumerate(start):
        for id, (first, last) in {1: (0, 6), 2: (6, 7), 3: (7, 12), 4: (12, 20)}.items():
            found[top + first : top + last, column] = id
    return found


def rimmed(number: int) -> np.ndarray:
    """A tumour, 2, that reaches the edge of its organ, 1, but for a rim."""
    found = discs(number, {1: 16})
    y, x = np.indices(found.shape)
    centre = np.argwhere(found).mean(0) + 4
    found[(np.hypot(y - centre[0], x - centre[1]) < 10) & (found > 0)] = 2
    return found


SOUND: dict[str, Draw] = {
    "discs": lambda k: discs(k, {1: 10, 2: 10, 3: 10, 4: 10}),
    "a wall of one pixel": lambda k: ringed(k, 2, (1, 1)),
    "a wall of two pixels": lambda k: ringed(k, 2, (1, 2)),
    "rings of three": lambda k: ringed(k, 4, (3, 3), (2, 3), (1, 3)),
    "a muscle around a chamber": lambda k: ringed(k, 3, (2, 3)) + (np.arange(80) < 9).astype(np.uint8)[None],
    "layers": layers,
    "a rim": rimmed,
    "small ones that touch": lambda k: np.maximum(discs(k, {1: 12}), discs(k + 50, {3: 4})),
    "resampled with the nearest": lambda k: enlarged(discs(k, {1: 10, 4: 12}), 1.7, Image.Resampling.NEAREST),
    "turned with the nearest": lambda k: turned(discs(k, {1: 10, 2: 9, 4: 12}), order=0),
    "vessels": lambda k: np.where(discs(k, {2: 16}) & (np.indices((64, 80))[1] % 7 == 0), 1, discs(k, {2: 16})),
    "two levels that were resampled": lambda k: turned(discs(k, {1: 12})),
}


@pytest.mark.parametrize("how", SOUND)
def test_thin_labels_are_none(how: str) -> None:
    assert doubts(SOUND[how]) == []


@pytest.mark.parametrize(
    ("draw", "unnamed", "said"),
    [
        (SOUND["a wall of one pixel"], {1, 2}, ["1 is a thin line between 0 and 2 wherever it is; if it is a contour"]),
        (
            SOUND["a wall of two pixels"],
            {1, 2},
            ["1 is a thin line between 0 and 2 wherever it is; if it is a contour"],
        ),
        (SOUND["a wall of one pixel"], {2}, []),
        (SOUND["layers"], {1, 2, 3, 4}, ["2 is a thin line between 1 and 3 wherever it is"]),
        (SOUND["layers"], {1, 3, 4}, []),
        (SOUND["a rim"], {1, 2}, []),
        (SOUND["discs"], {1, 2, 3, 4}, []),
        (RESAMPLED["4 turned"][0], {1, 2, 3, 4}, []),
    ],
)
def test_a_thin_line_without_a_name_may_be_a_contour(draw: Draw, unnamed: set[int], said: list[str]) -> None:
    masks = [draw(number).astype(np.int16) for number in range(6)]
    cases = [seams_of(f"c{k}", mask.T[..., None], np.unique(mask)) for k, mask in enumerate(masks)]
    found = thin_throughout(cases, unnamed)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_what_is_ignored_lies_between_nothing() -> None:
    masks = [np.where(discs(k, {1: 3}), -1, turned(discs(k, {4: 12}), order=0)).astype(np.int16) for k in range(6)]
    assert interpolated([seams_of(str(k), mask.T[..., None], [1, 2, 4]) for k, mask in enumerate(masks)]) == []


def test_a_volume_is_looked_at_in_its_slices_and_ids_stand_for_their_places() -> None:
    stacks = [np.stack([turned(discs(k, {3: 12})) for k in range(n, n + 4)], axis=-1).astype(np.uint8) for n in (0, 4)]

    (found,) = interpolated([seams_of(str(k), stack, [1, 2, 3]) for k, stack in enumerate(stacks)], (0, 10, 20, 30))

    assert "10, 20 on" in found
    assert "from 0 to 30" in found


@pytest.mark.parametrize("resampled", [True, False])
def test_check_names_the_masks_of_volumes(tmp_path: Path, resampled: bool) -> None:
    for number in range(6):
        case = tmp_path / f"p{number}"
        case.mkdir()
        mask = np.stack([discs(number + k, {2: 14}) for k in range(4)], axis=-1)
        mask = turned(mask, order=int(resampled)).astype(np.uint8)
        scan = np.random.default_rng(number).normal(200, 20, mask.shape) + 100.0 * (mask > 0)
        for name, voxels in {"image": scan.astype(np.float32), "mask": mask}.items():
            nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 3, 1])), case / f"{name}.nii.gz")

    found = [problem for problem in check_dataset(tmp_path).problems if "thin seams" in problem.text]

    assert [problem.severity for problem in found] == ["warning"] * resampled

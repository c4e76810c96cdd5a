"""Folders of masks beside the scans: left out of a recursive search, and told; where nothing lies beside, scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpt.use.archives.finding import Found, find_archive

OUT = Path("out")
SCAN = np.zeros((4, 4, 3), np.int16)


@pytest.fixture
def found(tmp_path: Path, save: Callable[..., Path]) -> Callable[..., Found]:
    def found(*paths: str, below: str = "", channels: int = 1) -> Found:
        for path in paths:
            (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
            save(tmp_path / "all" / f"{path}.nii.gz", SCAN)
        return find_archive([tmp_path / "all" / below], "volumes", channels, OUT, recursive=True)

    return found


def names(found: Found) -> list[str]:
    return [case.name for case in found.cases]


@pytest.mark.parametrize(
    "folder",
    ["masks", "Mask", "labels", "labelsTr", "gt", "GT_masks", "ground_truth", "Ground Truth", "annotations", "roi"],
)
def test_a_folder_of_masks_beside_scans_of_the_same_names_is_left_out_and_told(found, folder: str) -> None:
    everything = found("images/a", "images/b", f"{folder}/a", f"{folder}/b", f"{folder}/c")

    assert names(everything) == ["images/a", "images/b"]
    assert everything.notes == (
        f"3 files in {folder} are left out: the folder is called as one of masks and lies beside scans; if it holds "
        "scans, give it by itself",
    )
    assert len(everything.files) == 5


@pytest.mark.parametrize(
    ("scans", "masks"),
    [
        (["s1/ct", "s2/ct"], ["s1/segmentations/liver", "s1/segmentations/spleen", "s2/segmentations/liver"]),
        (["images/train/a", "images/val/b"], ["masks/train/a", "masks/val/b"]),
        (["train/images/a"], ["train/masks/a_mask", "train/masks/b_mask"]),
        (["imagesTr/a_0000", "imagesTs/b_0000"], ["labelsTr/a"]),
        (["segmentation/images/a"], ["segmentation/masks/a"]),
    ],
)
def test_masks_lie_beside_their_scans_in_many_ways(found, scans: list[str], masks: list[str]) -> None:
    everything = found(*scans, *masks)

    assert names(everything) == [name.removesuffix("_0000") for name in scans]
    (note,) = everything.notes
    assert note.startswith(f"{len(masks)} file")


def test_folders_of_masks_are_told_in_one_line(found) -> None:
    scans = [f"s{k}/ct" for k in range(5)]

    everything = found(*scans, *(f"s{k}/segmentations/liver" for k in range(5)))

    assert names(everything) == scans
    assert everything.notes == (
        "5 files in s0/segmentations, s1/segmentations, s2/segmentations and 2 more are left out: the folders are "
        "called as those of masks and lie beside scans; if one holds scans, give it by itself",
    )


@pytest.mark.parametrize(
    "paths",
    [
        ["labels/a", "labels/b"],
        ["labels/a", "masks/a"],
        ["masks/a", "site/x"],
        ["masks/train/a", "images/val/a"],
        ["masks of 3T/a", "images/a"],
        ["masks/deep/a", "b"],
        ["segmentation/images/a", "segmentation/images/b"],
        ["annotations/a", "annotations/b", "x"],
        ["s1/loc", "s1/roi/scanA", "s1/roi/scanB"],
        ["auto/1", "auto/2", "manual/1", "manual/2"],
    ],
)
def test_a_folder_called_as_masks_with_nothing_of_it_beside_holds_scans(found, paths: list[str]) -> None:
    everything = found(*paths)

    assert names(everything) == sorted(paths)
    assert everything.notes == ()


def test_a_folder_that_is_given_itself_is_not_guessed_at(found) -> None:
    everything = found("images/a", "masks/a", "masks/deep/b", below="masks")

    assert names(everything) == ["a", "deep/b"]
    assert everything.notes == ()


def test_what_makes_no_case_in_a_folder_of_masks_is_no_failure(found) -> None:
    everything = found("images/a_0000", "images/a_0001", "masks/a", "masks/b_0000", channels=2)

    assert names(everything) == ["images/a"]
    assert everything.failures == ()

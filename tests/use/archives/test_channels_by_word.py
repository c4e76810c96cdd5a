"""Channels by a word in their files' names: what is one case, in which order, and what is wrong in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from vpt.use.archives.named_channels import Named, by_channel_names

SCAN, WHOLE = np.zeros((4, 4, 3), np.int16), np.zeros((4, 4, 3, 4), np.int16)
BRATS = ("t2w", "t1c", "t1n", "t2f")  # as a dataset.json may order them


def named(*names: str, channels: Sequence[str] = BRATS, folder: str = "p7") -> Named:
    return by_channel_names([Path("all", folder, f"{name}.nii.gz") for name in names], channels)


def words(found: Named) -> dict[str, list[str]]:
    return {name: [file.name.removesuffix(".nii.gz") for file in files] for name, files in found.cases.items()}


@pytest.mark.parametrize(
    ("files", "case"),
    [
        (["A-000-t1c", "A-000-t1n", "A-000-t2f", "A-000-t2w"], "A-000"),
        (["A_T1C", "A_t1n", "A_T2f", "A_t2w"], "A"),
        (["t1c_A", "t1n_A", "t2f_A", "t2w_A"], "A"),
        (["A_t1c.reg", "A_t1n.reg", "A_t2f.reg", "A_t2w.reg"], "A_reg"),
        (["t1c", "t1n", "t2f", "t2w"], "p7"),
        (["in-t2w_t1c", "in-t2w_t1n", "in-t2w_t2f", "in-t2w_t2w"], "in-t2w"),
        (["t1c_0007", "t1n_0007", "t2f_0007", "t2w_0007"], "0007"),
    ],
)
def test_files_whose_names_differ_in_a_channel_are_one_case_in_the_order_of_the_model(
    files: list[str], case: str
) -> None:
    found = named(*files)

    assert words(found) == {case: [files[3], files[0], files[1], files[2]]}
    assert (found.problems, found.others, found.rest) == ({}, [], [])


def test_channels_of_several_words_and_those_that_begin_alike_are_told() -> None:
    found = named("a_T1", "a_T1_post", "b_T1_post", "b_T1", channels=("T1 post", "T1"))

    assert words(found) == {"a": ["a_T1_post", "a_T1"], "b": ["b_T1_post", "b_T1"]}


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        (["a_CT"], ("CT",)),
        (["a_1", "a_2"], ("1", "2")),
        (["a_CT"], ("CT", "ct")),
        (["a_0000", "a_0001"], ("a", "CT")),
        (["study_t1_0000", "study_t1_0001"], ("t1", "t2")),
    ],
)
def test_one_channel_numbers_and_names_of_two_channels_tell_nothing(
    files: list[str], channels: tuple[str, ...]
) -> None:
    found = named(*files, channels=channels)

    assert [file.name for file in found.rest] == [f"{name}.nii.gz" for name in files]
    assert (found.cases, found.problems) == ({}, {})


def test_what_a_case_lacks_or_has_twice_is_one_sentence() -> None:
    found = by_channel_names(
        [
            *(Path("all", f"a_{name}.nii.gz") for name in ("t1c", "t1n")),
            *(Path("all", f"b_{name}") for name in ("t1c.nii", "t1c.nii.gz", "t1n.nii", "t2f.nii", "t2w.nii")),
            *(Path("all", f"c_{name}.nii.gz") for name in ("t1c", "t1n", "t2f", "t2")),
            *(Path("all", f"d_{name}.nii.gz") for name in BRATS),
        ],
        BRATS,
    )

    assert [*found.cases] == ["d"]
    assert {name: str(problem) for name, problem in found.problems.items()} == {
        "a": "all/a_t1c.nii.gz: a has the channels t1c, t1n, but not t2w, t2f, which the model was trained on; "
        "add them, or take the case out",
        "b": "all/b_t2w.nii: b has the channel t1c more than once (b_t1c.nii, b_t1c.nii.gz); keep one",
        "c": "all/c_t1c.nii.gz: c has the channels t1c, t1n, t2f, but not t2w, which the model was trained on; "
        "add it, or take the case out; c_t2.nii.gz is called as none of the model's channels",
    }
    assert not found.rest


def test_cases_of_one_name_are_told() -> None:
    found = named("a_CT", "a_PET", "a-CT", "a-PET", channels=("CT", "PET"))

    assert len(found.cases) == 1
    (problem,) = found.problems.values()
    assert "the second case called a; keep one of the two" in str(problem)


def test_further_sequences_are_others_and_masks_are_not(save: Callable[..., Path], tmp_path: Path) -> None:
    names = (*(f"a_{name}" for name in BRATS), "a_dwi", "a_seg", "b", "b_dwi")
    found = by_channel_names([save(tmp_path / f"{name}.nii.gz", SCAN) for name in names], BRATS)

    assert [file.name for file in found.others] == ["a_dwi.nii.gz"]
    assert [file.name for file in found.rest] == ["a_seg.nii.gz", "b.nii.gz", "b_dwi.nii.gz"]


def test_files_that_hold_all_channels_stay_whole_whatever_they_are_called(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a_t1c", "b_all"):
        save(tmp_path / f"{name}.nii.gz", WHOLE)
    for name in BRATS:
        save(tmp_path / f"b_{name}.nii.gz", SCAN)
    found = by_channel_names(sorted(tmp_path.iterdir()), BRATS)

    assert [*found.cases] == ["b"]
    assert [file.name for file in found.rest] == ["a_t1c.nii.gz", "b_all.nii.gz"]
    assert not found.problems


def test_many_files_beside_loose_channels_are_none_of_their_case() -> None:
    scans = [f"{k:03d}" for k in range(20)]

    found = named("CT", "PET", *scans, channels=("CT", "PET"))

    assert [*found.cases] == ["p7"]
    assert (len(found.rest), found.others) == (20, [])

"""Which part of an archive a process does: options before launchers, and no scan in two parts or in none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import VptError
from vpt.use.archives.parts import ALONE, Part, part_of

ARRAY = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "9"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_parts_hold_every_item_once(items: list[int], count: int) -> None:
    parts = [Part(number, count).of_all(items) for number in range(count)]

    assert sorted(item for part in parts for item in part) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ((None, None), {}, (0, 1)),
        ((4, 3), {"RANK": "0", "WORLD_SIZE": "2"}, (3, 4)),
        ((None, None), {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ((None, None), {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        ((None, None), {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, (1, 2)),
        # a batch script that starts it without srun is one process
        ((None, None), {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, (0, 1)),
        ((None, None), ARRAY | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_STEP": "2"}, (1, 3)),
        ((None, None), {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4)),
        (
            (None, None),
            {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "2", "SLURM_NTASKS": "3"},
            (5, 6),
        ),
    ],
)
def test_who_says_which_part(
    options: tuple[int | None, int | None], environment: dict[str, str], expected: tuple[int, int]
) -> None:
    part = part_of(*options, environment)

    assert (part.number, part.of) == expected
    assert bool(part.by) == (expected != (0, 1))


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        ((4, None), {}, "--num-parts and --part-id go together"),
        ((None, 1), {}, "go together"),
        ((2, 2), {}, "part 2 of 2: parts are numbered from 0"),
        ((0, 0), {}, "parts are numbered from 0"),
        ((None, None), {"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x' in the environment is no number"),
        ((None, None), {"RANK": "2", "WORLD_SIZE": "2"}, "part 2 of 2"),
        ((None, None), ARRAY | {"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_STEP": "1"}, "has gaps"),
    ],
)
def test_what_leaves_the_part_open_is_refused(
    options: tuple[int | None, int | None], environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(VptError, match=sentence):
        part_of(*options, environment)


def test_alone_is_all() -> None:
    assert ALONE.of_all("abc") == ["a", "b", "c"]

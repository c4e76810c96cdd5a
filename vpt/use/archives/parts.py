"""The part of an archive that one process does, when several share it: by options, `torchrun` or SLURM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vpt.errors import VptError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Of `of` parts the one with this number, counted from 0; by: who says so."""

    number: int = 0
    of: int = 1
    by: str = ""

    def of_all(self, items: Sequence[Item]) -> list[Item]:
        """Every `of`-th item, so that parts of a sorted archive take about equally long."""
        return list(items[self.number :: self.of])

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"


ALONE = Part()


def part_of(count: int | None, number: int | None, environment: Mapping[str, str]) -> Part:
    """What `--num-parts` and `--part-id` say, else what the environment of a launcher says.

    Raises:
        VptError: one option without the other, a part that there is not, an environment that leaves it open.
    """
    if count is not None or number is not None:
        if count is None or number is None:
            raise VptError("--num-parts and --part-id go together: --num-parts 4 --part-id 0 to 3")
        return _checked(Part(number, count, "--num-parts"))
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _checked(Part(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"), "torchrun (RANK)"))
    return _checked(_by_slurm(environment))


def _by_slurm(environment: Mapping[str, str]) -> Part:
    """The tasks of an array, and in each of them the processes of `srun`."""
    tasks, processes = _of_array(environment), _of_step(environment)
    by = " and ".join(part.by for part in (tasks, processes) if part.of > 1)
    return Part(tasks.number * processes.of + processes.number, tasks.of * processes.of, by)


def _of_array(environment: Mapping[str, str]) -> Part:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return ALONE
    own, count = _number(environment, "SLURM_ARRAY_TASK_ID"), _number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
    first, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{which}", default)
        for which, default in (("MIN", 0), ("MAX", count - 1))
    )
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", max(1, (last - first) // max(1, count - 1)))
    if count > 1 and (first + step * (count - 1) != last or (own - first) % step):
        raise VptError(
            f"SLURM's array of {count} tasks from {first} to {last} has gaps, so task {own} does not know its part; "
            "give --num-parts and --part-id"
        )
    return Part((own - first) // step, count, "SLURM's array (SLURM_ARRAY_TASK_ID)") if count > 1 else ALONE


def _of_step(environment: Mapping[str, str]) -> Part:
    """Of a step of `srun`; a batch script that calls us without it is one process, however many tasks it asked for."""
    if "SLURM_PROCID" not in environment or "SLURM_NTASKS" not in environment:
        return ALONE
    if "SLURM_JOB_ID" in environment and not {"SLURM_STEP_ID", "SLURM_STEPID"} & environment.keys():
        return ALONE
    count = _number(environment, "SLURM_STEP_NUM_TASKS", _number(environment, "SLURM_NTASKS"))
    return Part(_number(environment, "SLURM_PROCID"), count, "SLURM (SLURM_PROCID)")


def _number(environment: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = environment.get(name)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return int(text or "")
    except ValueError:
        raise VptError(f"{name}={text!r} in the environment is no number; unset it, or give --num-parts") from None


def _checked(part: Part) -> Part:
    if part.of < 1 or not 0 <= part.number < part.of:
        raise VptError(
            f"{part}: parts are numbered from 0 to one below their number ({part.by}); for four give "
            "--num-parts 4 --part-id 0, 1, 2 and 3"
        )
    return part

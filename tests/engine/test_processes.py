"""Launchers that start a training several times are refused by name; a job that starts it once is not."""

from __future__ import annotations

import pytest

from vpt.engine.processes import require_one_process
from vpt.errors import VptError


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1"}, "this is process 1 of 2 that torchrun started"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, "process 3 of 4 that srun started"),
    ],
)
def test_one_of_several_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(VptError, match=said):
        require_one_process(environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, {"WORLD_SIZE": "many"}],
)
def test_one_alone_is_not(environment: dict[str, str]) -> None:
    require_one_process(environment)

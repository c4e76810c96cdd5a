"""Launchers that start one command several times: torchrun, srun."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vpt.errors import VptError

LAUNCHERS = {"torchrun": ("WORLD_SIZE", "RANK"), "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")}


def require_one_process(environment: Mapping[str, str] = os.environ) -> None:
    """Raise VptError where this is one of several processes that were started with the same command.

    A job that was given several tasks (`SLURM_NTASKS`), but starts this command once, is one process.
    """
    for launcher, (count, number) in LAUNCHERS.items():
        if environment.get(count, "1").isdigit() and int(environment.get(count, "1")) > 1:
            raise VptError(
                f"this is process {environment.get(number, '?')} of {environment[count]} that {launcher} started, and "
                "a training is one process; start it once, or let several share folds (--folds) or `vpt compare`"
            )

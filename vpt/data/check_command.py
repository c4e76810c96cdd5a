"""The command that lists all that is wrong with a data set, where a refusal says one thing of many."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from vpt.data.label_values import Claim


def check_command(
    path: str | Path,
    patients: str | None = None,
    labels: Mapping[str, Claim] | None = None,
    task: str | None = None,
) -> str:
    """`vpt check DATA` with what the data set was read by: what `vpt train` was told of patients, labels and task."""
    options = {"--patients": patients, "--labels": json.dumps(labels) if labels else None, "--task": task}
    told = [word for name, value in options.items() if value is not None for word in (name, value)]
    return shlex.join(["vpt", "check", str(path), *told])

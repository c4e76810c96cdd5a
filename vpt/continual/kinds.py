"""What the tasks of a protocol are of, classes or masks: how they are made, and who learns them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpt.continual.learner import Learner
from vpt.continual.learners import AllAtOnce, OneByOne, OnFeatures
from vpt.continual.mask_tasks import make_mask_tasks
from vpt.continual.masks_at_once import MasksAtOnce
from vpt.continual.masks_in_turn import MasksInTurn
from vpt.continual.protocol import JOINT, ON_FEATURES, Protocol
from vpt.continual.tasks import make_tasks


def tasks_of(protocol: Protocol, seed: int) -> list[Any]:
    """The tasks, in the order of that seed; raises VptError where the data do not make them."""
    return list(make_mask_tasks(protocol, seed) if protocol.of_masks else make_tasks(protocol, seed))


def make_learner(method: str, tasks: Sequence[Any], protocol: Protocol, seed: int, out: Path, cache: Path) -> Learner:
    """out: a folder for this method's runs; cache: for prepared images, shared by all methods."""
    if method == JOINT:
        at_once = MasksAtOnce if protocol.of_masks else AllAtOnce
        return at_once(tasks, protocol, seed, out, cache)
    if method in ON_FEATURES:
        return OnFeatures(method, protocol, seed, out, cache)
    in_turn = MasksInTurn if protocol.of_masks else OneByOne
    return in_turn(method, protocol, seed, out, cache)

"""What the generators give that a training may draw from."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_nothing_that_a_training_imports_later_draws_from_what_was_seeded() -> None:
    """rich, which Lightning imports, numbers its styles from a random start."""
    said = (
        "import random; from vpt.engine.randomness import seed_all; seed_all(3); before = random.getstate()\n"
        "from lightning.fabric import Fabric; import matplotlib.figure, torch.utils.tensorboard\n"
        "assert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", said], check=True)

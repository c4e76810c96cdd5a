"""Six kills of a training and two of a prediction: nothing is lost (`kills.py` does as many as one likes)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_nothing_is_lost_to_kills() -> None:
    script = Path(__file__).with_name("kills.py")
    command = [sys.executable, str(script), "--number", "6", "--predictions", "2"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert told.returncode == 0, told.stdout + told.stderr
    assert " kills, 0 faults" in told.stdout

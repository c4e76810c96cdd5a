"""What a page says of a run's surroundings, where the file that says so is another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vpt.artifact import read_artifact
from vpt.use.pages.facts import _environment
from vpt.use.pages.making import as_typed


@pytest.mark.slow
@pytest.mark.parametrize("said", [7, [], {"command": [["vpt"]]}, {"command": 1, "versions": 3}])
def test_a_damaged_environment_leaves_a_page_without_it(tiny_run: Path, tmp_path: Path, said: object) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(tiny_run / "best.safetensors", run)
    (run / "environment.json").write_text(json.dumps(said))
    facts = dict(_environment(run, read_artifact(run)))
    assert "command" not in facts
    assert "vpt" in facts["versions"]


def test_a_command_is_told_as_one_types_it() -> None:
    assert as_typed(["/opt/bin/vpt", "check", "my data"]) == "vpt check 'my data'"
    assert as_typed(["/opt/vpt/__main__.py", "check", "A"]) == "python -m vpt check A"

"""The scripts of docs/scale.md as they stand there, under what SLURM, systemd and cron give them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
LONGEST = 300  # seconds for a command
SHIMS = {
    "vpt": f'exec {sys.executable} -c "from vpt.cli import main; main()" "$@"',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; SLURM_STEP_ID=0 SLURM_PROCID=0 exec "$@"',  # without options
    "scontrol": 'echo "$@" >> "$TOLD"',
}


def recipe(language: str, holding: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return next(block for block in blocks if holding in block)


@pytest.fixture
def scans(tiny_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for path in sorted((tiny_data / "imagesTr").glob("*.nii.gz"))[:3]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """shell("bash", script, SLURM_JOB_ID="7"): the script, where `vpt` and what SLURM brings are commands."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in SHIMS.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)

    def start(program: str, script: str, **environment: str) -> subprocess.Popen[str]:
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        given = os.environ | {"PATH": path, "TOLD": str(tmp_path / "told"), "OMP_NUM_THREADS": "1"} | environment
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen([program, "-c", script], env=given, **options)  # type: ignore[call-overload]

    return start


def put(script: str, places: Mapping[str, Path]) -> str:
    """The script with these folders in the place of its own."""
    for place, path in places.items():
        assert place in script
        script = script.replace(place, str(path))
    return script


def told(process: subprocess.Popen[str], code: int = 0) -> str:
    text, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == code, text
    return text


@pytest.mark.slow
def test_an_array_of_slurm_shares_an_archive_and_goes_on(shell, scans: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    script = put(recipe("bash", "--array"), {"/archive": scans, "/results": out, "runs/liver": tiny_run})
    tasks = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"}
    tasks |= {"SLURM_ARRAY_TASK_MAX": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}

    first, second = (told(shell("bash", script, **tasks, SLURM_ARRAY_TASK_ID=task)) for task in "01")
    again = told(shell("bash", script, **tasks, SLURM_ARRAY_TASK_ID="0", SLURM_RESTART_COUNT="1"))

    assert "part 0 of 2 (SLURM's array (SLURM_ARRAY_TASK_ID)): 2 of 2 scans segmented" in first
    assert "part 1 of 2 (SLURM's array (SLURM_ARRAY_TASK_ID)): 1 of 1 scans segmented" in second
    assert "2 of them were done before and are unchanged" in again
    assert json.loads((out / "predictions.json").read_text())["counts"] == {"done": 3}


@pytest.mark.slow
def test_a_training_whose_time_is_over_is_put_back_into_the_queue(shell, tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = put(recipe("bash", "scontrol requeue"), {"/data/liver": tiny_data, "/work/runs/liver": run})
    small = "--prompts deep:2 --device cpu --epochs 1 --set train.max_steps=400 --set plan.image_size=32"
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_CPUS_PER_TASK": "1"}
    script = script.replace("--resume", f"--resume {small}")

    state = run / "state" / "last.safetensors"
    first = shell("bash", script, **job)
    _wait_for(state, first)
    _signal_the_step(first)
    told(first, 143)
    requeued = (tmp_path / "told").read_text()
    before = state.stat().st_mtime_ns
    second = shell("bash", script, **job)
    _wait_for(state, second, before)  # it is saved anew before the first step
    _signal_the_step(second)
    text = told(second, 143)

    assert requeued == "requeue 7\n"
    assert "no state" not in text


@pytest.mark.slow
def test_a_line_of_cron_answers_what_is_new(shell, scans: Path, tiny_run: Path, tmp_path: Path) -> None:
    (line,) = re.findall(r"`\*/10 \* \* \* \* ([^`]*)`", PAGE.read_text(encoding="utf-8"))
    out = tmp_path / "results"
    places = {"/incoming": scans, "/results": out, "/models/liver": tiny_run, "/tmp/vpt.lock": tmp_path / "lock"}
    script = put(line, places)
    assert "3 of 3 scans segmented" in told(shell("sh", script))
    shutil.copy(scans / "blobs_000_0000.nii.gz", scans / "new.nii.gz")
    with open(tmp_path / "lock") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        told(shell("sh", script), 1)  # the one before is still at work
    assert "4 of 4 scans segmented" in told(shell("sh", script))


def test_the_unit_of_systemd_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    program = tmp_path / "vpt"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "vpt-watch.service"
    unit.write_text(put(recipe("ini", "vpt watch"), {"/opt/vpt/bin/vpt": program}))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (found.returncode, "vpt-watch" in found.stderr) == (0, False), found.stderr


def _wait_for(path: Path, process: subprocess.Popen[str], before: int | None = None) -> None:
    """Until the file is there, or of another time than before."""
    end = time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < end:
        if path.exists() and path.stat().st_mtime_ns != before:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]


def _signal_the_step(script: subprocess.Popen[str]) -> None:
    """SIGTERM to what `srun` started, as `--signal=TERM@120` does; not to the script."""
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)

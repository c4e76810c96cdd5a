"""Training, predicting and evaluating open no connection, nor do their workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import SETTINGS

# Told by Python itself, whichever library asks; inherited by worker processes, which are forked.
PROGRAM = """
import os, socket, sys

def watch(event, arguments):
    named = event in ("socket.getaddrinfo", "socket.gethostbyname")
    if named or (event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX):
        with open(os.environ["TOLD"], "a") as told:
            print(event, arguments, file=told)

sys.addaudithook(watch)
exec(sys.argv.pop(1))
"""
COMMAND = "from vpt.cli import main; main()"


def connections(folder: Path, program: str, *words: object) -> str:
    """What the program, which has to succeed, asked of the network."""
    told = folder / "told"
    own = {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "TOLD": str(told)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, program, *map(str, words)], capture_output=True, text=True, env=os.environ | own
    )
    assert done.returncode == 0, done.stderr
    return told.read_text() if told.exists() else ""


def test_a_connection_would_be_seen(tmp_path: Path) -> None:
    asking = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"

    assert "127.0.0.1" in connections(tmp_path, asking)
    assert "nowhere" in connections(
        tmp_path,
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('nowhere.invalid', 80)",
    )


@pytest.mark.slow
def test_training_predicting_and_evaluating_open_no_connection(tiny_data: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    settings = {key: value for key, value in SETTINGS.items() if key != "prompts"} | {"train.workers": 1}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    assert connections(tmp_path, COMMAND, "train", tiny_data, "--out", run, *sets) == ""
    assert connections(tmp_path, COMMAND, "predict", "-i", tiny_data / "imagesTr", "-o", out, "-m", run) == ""
    assert connections(tmp_path, COMMAND, "evaluate", run) == ""

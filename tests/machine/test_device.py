"""A machine on which torch cannot run says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from vpt.errors import VptError
from vpt.machine.device import choose_device

ASKED = """
from vpt.errors import VptError
from vpt.machine.device import choose_device
try:
    print(choose_device("cpu"))
except VptError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0 or not shutil.which("unshare"), reason="for root, on Linux")
@pytest.mark.parametrize(("folder", "said"), [("/proc", "as where /proc is hidden or not mounted"), ("/sys", "cpu")])
def test_what_torch_asks_the_system_for_may_be_missing(folder: str, said: str) -> None:
    around = f'mount -t tmpfs tmpfs {folder} || exit 77; exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", around, "sh", sys.executable, "-c", ASKED]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip("no mounts here")
    assert said in done.stdout.strip(), done.stderr


@pytest.mark.parametrize("name", ["cpx", "meta", "cuda:99", "xla", "hpu"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    """`meta` is one of torch's, which holds no numbers."""
    with pytest.raises(VptError, match=f"device {name}: not available here .*; choose auto or cpu") as said:
        choose_device(name)
    assert len(str(said.value)) < 300

"""Processes that cannot find each other say so, and soon."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from vpt.engine import joining
from vpt.engine.joining import together
from vpt.engine.processes import Place
from vpt.engine.signals import heed_signals
from vpt.errors import VptError

SECOND = Place(number=1, of=2, local=0, locals=1, address="", port=29500, by="torchrun")


@pytest.mark.parametrize("name", ["no-such-machine.invalid", "a..b", "x" * 70 + ".invalid", "no such machine"])
def test_a_name_that_no_machine_has_is_said_soon(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(joining, "NAMING", 0.2)
    began = time.monotonic()
    with (
        pytest.raises(VptError, match=r"MASTER_ADDR=.*: this machine knows no other of that name .*; give the name"),
        heed_signals() as signals,
        together(signals, replace(SECOND, address=name)),
    ):
        pass
    assert time.monotonic() - began < 10

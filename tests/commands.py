"""The command line as a person uses it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from vpt.cli import main


class Told(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def flat(self) -> str:
        """The output without the line breaks that a table puts into long names."""
        return "".join(self.out.split())


@pytest.fixture
def vpt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """vpt("check", folder): the command, run in this process as its entry point runs it."""

    def call(*words: Any) -> Told:
        monkeypatch.setattr(sys, "argv", ["vpt", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        told = capsys.readouterr()
        return Told(int(left.value.code or 0), told.out, told.err)

    return call

"""Mutants of real files raise no traceback, do not hang, take no memory, change nothing, and no damage is believed."""

from __future__ import annotations

import pytest
from fuzz import Tally, fuzz


def faults_of(tally: Tally) -> list[str]:
    return [f"seed {seed} ({name}): {said}" for said, (name, seed) in tally.faults.items()]


@pytest.mark.slow
def test_sixty_mutants_of_every_kind_of_file() -> None:
    tally = fuzz(64, seconds=60, workers=2)
    assert tally.tried == 64
    assert faults_of(tally) == []


@pytest.mark.slow
def test_five_hundred_mutants() -> None:
    """Ten thousand by `python tests/reliability/fuzz.py --mutants 10000`; docs/reliability.md has their figures."""
    tally = fuzz(500, seconds=300, seed=10_000)
    assert tally.tried == 500
    assert faults_of(tally) == []


@pytest.mark.slow
def test_a_fault_is_found_and_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.config import files

    def read(text: str) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(files, "parse_yaml", read)  # the workers are forked
    tally = fuzz(6, seconds=60, workers=1, kinds=["yaml"])
    assert tally.counts["yaml", "traceback"] >= 4
    assert "KeyError: 'a fault'" in faults_of(tally)[0]

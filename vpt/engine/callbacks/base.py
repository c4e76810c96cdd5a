"""What a training tells of itself while it goes on, as plain data; see docs/extending.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["done", "interrupted", "failed"]
"""How a run ended; it may go on from where it was interrupted."""


@dataclass(frozen=True)
class Start:
    """A run begins, or goes on after `epoch` epochs; config: all settings, nested as in its config.yaml."""

    run: Path
    config: Mapping[str, Any]
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Epoch:
    """An epoch ended, the first one is 1.

    scores: its row of metrics.csv: loss, rate, seconds, and scores where it was validated; best: none was better;
    pictures: of validation cases, by case, at some epochs.
    """

    run: Path
    epoch: int
    epochs: int
    scores: Mapping[str, float]
    best: bool
    pictures: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """The run ended after `epoch` epochs, with all its files if it is done, or for a reason.

    scores: of its best epoch so far; none before the first.
    """

    run: Path
    outcome: Outcome
    epoch: int
    scores: Mapping[str, float]
    reason: str = ""


class Callback:
    """Told of a training; made without arguments. Derive from it, and override what you need.

    What `on_check` raises ends the run before anything is written or prepared, what `on_start` raises before its first
    step. What the others raise is a warning in the log: the callback is told nothing more, and the training goes on.
    """

    def on_check(self) -> None:
        """Whether there will be somebody to tell: raise where a server refuses, before the data are prepared for it."""

    def on_start(self, start: Start) -> None: ...

    def on_epoch(self, epoch: Epoch) -> None: ...

    def on_end(self, end: End) -> None: ...


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, `optim.lr`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found

"""Callbacks of a training: found by name before anything is written, and told what happens.

A new one of our own is a row in `OURS`; those of users are `package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

from vpt.config import Config
from vpt.engine.callbacks.base import Callback as Callback
from vpt.engine.callbacks.base import End, Epoch, Outcome, Start
from vpt.engine.callbacks.mlflow import MlflowRun
from vpt.engine.callbacks.wandb import WandbRun
from vpt.engine.checkpoint import Progress
from vpt.errors import VptError
from vpt.words import did_you_mean

OURS: dict[str, type[MlflowRun | WandbRun]] = {"mlflow": MlflowRun, "wandb": WandbRun}
METHODS = ("on_start", "on_epoch", "on_end")


def load_callbacks(names: Sequence[str]) -> dict[str, Callback]:
    """The callbacks that a config names, each made without arguments.

    Raises:
        VptError: an unknown name, a package that is missing, a class that cannot be imported or made, or is none.
    """
    return {name: _ours(name) if ":" not in name else _foreign(name) for name in names}


def check_callbacks(callbacks: Mapping[str, Callback]) -> None:
    """Before anything is written or prepared. Raises VptError with what the `on_check` of one raises."""
    for name, callback in callbacks.items():
        check = getattr(callback, "on_check", None)  # which those that are not derived from `Callback` need not have
        try:
            if check is not None:
                check()
        except Exception as error:
            raise _cannot_start(name, error) from error


def _cannot_start(name: str, error: Exception) -> VptError:
    return VptError(
        f"callbacks: {name} cannot start ({type(error).__name__}: {error}); mend it or leave it out, and give the same "
        "command again"
    )


def _ours(name: str) -> Callback:
    if name not in OURS:
        hint = did_you_mean(name, OURS) or f"; expected {', '.join(OURS)}, or package.module:Class"
        raise VptError(f"callbacks: none is called {name!r}{hint}")
    found = OURS[name]
    if find_spec(found.needs) is None:
        raise VptError(f"callbacks: {name} needs a package that is not installed; pip install 'vpt[{name}]'")
    return found()


def _foreign(name: str) -> Callback:
    module, _, path = name.partition(":")
    try:
        made: Callback = attrgetter(path)(import_module(module))()
    except Exception as error:  # of someone else's code
        raise VptError(
            f"callbacks: {name} cannot be imported or made ({type(error).__name__}: {error}); mend it, install its "
            "package, or put the folder that holds it in PYTHONPATH"
        ) from error
    if missing := [method for method in METHODS if not callable(getattr(made, method, None))]:
        raise VptError(f"callbacks: {name} has no method {missing[0]}; derive it from vpt.Callback")
    return made


class Told:
    """Callbacks by name, and which of them have been told that a run began; say: of a person who should know."""

    def __init__(self, callbacks: Mapping[str, Callback], say: Callable[[str], None] = lambda said: None):
        self._waiting, self._say = dict(callbacks), say
        self._started: dict[str, Callback] = {}
        self._progress = Progress()

    def start(self, run: Path, config: Config, progress: Progress) -> None:
        """Before the first step. Raises VptError with what a callback raises."""
        self._progress = progress
        told = Start(run, config.model_dump(mode="json"), progress.epoch, config.train.epochs)
        for name, callback in self._waiting.items():
            try:
                callback.on_start(told)
            except Exception as error:
                raise _cannot_start(name, error) from error
            self._started[name] = callback

    def epoch(self, told: Epoch) -> None:
        self._tell("on_epoch", told)

    @contextmanager
    def until_end(self, run: Path) -> Iterator[None]:
        """Tells the end of what is done inside, however it comes."""
        try:
            yield
        except KeyboardInterrupt:
            self._end(run, "interrupted")
            raise
        except BaseException as error:
            self._end(run, "failed", str(error) or type(error).__name__)
            raise
        self._end(run, "done")

    def _end(self, run: Path, outcome: Outcome, reason: str = "") -> None:
        rows, best = self._progress.rows, self._progress.best_epoch
        scores = next((row for row in rows if row["epoch"] == best), {})
        self._tell("on_end", End(run, outcome, self._progress.epoch, scores, reason))

    def _tell(self, method: str, told: Any) -> None:
        for name, callback in list(self._started.items()):
            try:
                getattr(callback, method)(told)
            except Exception as error:
                del self._started[name]
                self._say(
                    f"callbacks: {name} failed in {method} ({type(error).__name__}: {error}); it is told nothing more, "
                    "the run goes on"
                )

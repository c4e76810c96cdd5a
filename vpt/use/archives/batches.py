"""The batch that fits a model: masks or classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Asked, Recorder
from vpt.use.archives.classifying import ClassBatch
from vpt.use.archives.fingerprints import ModelMark, loaded_whole
from vpt.use.archives.masks import never
from vpt.use.archives.segmenting import MaskBatch
from vpt.use.classifier import Classifier
from vpt.use.load import load
from vpt.use.segmenter import Segmenter


class Batch(Protocol):
    """What answers and records cases: `MaskBatch`, `ClassBatch`."""

    asked: Asked
    recorder: Recorder

    def files(self, case: Case) -> list[Path]: ...

    def run(
        self, cases: Sequence[Case], progress: Tick = silent, stop: Callable[[], bool] = never
    ) -> list[Failure]: ...

    def sum_up(self) -> None: ...


def batch_of(model: Segmenter | Classifier, out: Path, asked: Asked, mark: ModelMark) -> Batch:
    kind = ClassBatch if isinstance(model, Classifier) else MaskBatch
    return kind(model, out, asked, mark)  # type: ignore[arg-type]


def loaded_batch(artifacts: Sequence[Path], loading: dict[str, Any], out: Path, asked: Asked, mark: ModelMark) -> Batch:
    """In another process: `loading` are the other arguments of `load`.

    Raises:
        VptError: an artifact that is not any more the one of the mark.
    """
    model, hashes = loaded_whole(artifacts, lambda: load(artifacts, **loading))
    if ModelMark.of(artifacts, {}, hashes).sha256 != mark.sha256:
        raise VptError(
            f"{artifacts[0]}: was replaced since the command began; wait until what writes it is at its end, or give a "
            "copy"
        )
    return batch_of(model, out, asked, mark)

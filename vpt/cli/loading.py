"""How commands that answer new scans load their model, and what they say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from vpt.cli.shared import usage
from vpt.vocabulary import DECIDED, AskedDecision, Precision

if TYPE_CHECKING:
    from vpt.readers import Form
    from vpt.use.archives import Asked, ModelMark
    from vpt.use.classifier import Classifier
    from vpt.use.segmenter import Segmenter


@dataclass(frozen=True)
class Loading:
    """The arguments of `vpt.load`. models: runs or artifacts, each perhaps as NAME=PATH."""

    models: list[str]
    device: str
    weights: Path | None
    precision: Precision | None
    compile: bool = False
    tta: bool = False
    postprocess: bool = True
    task: str | None = None
    decide: AskedDecision = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        """All but the models."""
        return {name: value for name, value in vars(self).items() if name != "models"}


def precision_of(word: str | None) -> Precision | None:
    """What `--precision` asks for."""
    if word not in (None, *get_args(Precision)):
        usage(f"--precision {word}: expected {', '.join(get_args(Precision))}")
    return cast(Any, word)


def form_of(word: str) -> Form:
    """What `--as` asks for."""
    from vpt.readers import Form

    if word not in get_args(Form):
        usage(f"--as {word}: expected {', '.join(get_args(Form))}")
    return cast(Any, word)


def load_marked(loading: Loading, asked: Asked) -> tuple[Segmenter | Classifier, ModelMark]:
    """The model, and the mark that its answers are recorded with."""
    from vpt.artifact import find_artifact
    from vpt.use.archives import ModelMark, loaded_whole
    from vpt.use.load import load
    from vpt.use.models import models_in

    chosen = [find_artifact(path) for path in models_in(loading.models)]
    loaded, hashes = loaded_whole(chosen, lambda: load(chosen, **loading.arguments))
    settings: dict[str, Any] = {
        "tta": loading.tta,
        "force": asked.force,
        "as": asked.form,
        "series": asked.series,
        "precision": loading.precision,
        "compile": loading.compile,
        "device": loaded.device.type,
    }
    if loading.task is not None:
        settings["task"] = loading.task
    if (decision := _decision_of(loaded)) != "likeliest":
        settings["decide"] = decision
    if words := _postprocess_of(loaded):
        settings["postprocess"] = words
    elif not loading.postprocess:
        settings["postprocess"] = "none"
    return loaded, ModelMark.of(chosen, settings, hashes)


def _postprocess_of(loaded: Segmenter | Classifier) -> str:
    """How the model's masks are tidied, in words; "" where they are not."""
    from vpt.data.postprocess import in_words
    from vpt.use.segmenter import Segmenter

    if not isinstance(loaded, Segmenter) or not loaded.postprocess:
        return ""
    return in_words(loaded.postprocess, loaded.labels)


def _decision_of(loaded: Segmenter | Classifier) -> AskedDecision:
    """How its probabilities become a mask; "auto" where that differs from task to task."""
    from vpt.use.by_task import SegmenterByTask

    each: list[Segmenter | Classifier]
    if isinstance(loaded, SegmenterByTask):
        each = [loaded.members[loaded.told]] if loaded.told is not None else [*loaded.members.values()]
    else:
        each = [loaded]
    found: set[AskedDecision] = {getattr(member, "decision", "likeliest") for member in each}
    return found.pop() if len(found) == 1 else "auto"


def say_chosen(loaded: Segmenter | Classifier, decide: AskedDecision) -> None:
    """What the training chose for its masks, where that is done."""
    if decide == "auto" and (decision := _decision_of(loaded)) != "likeliest":
        of = "of some tasks " if decision == "auto" else ""
        print(f"{of}{DECIDED['dice']}, as chosen on validation")
    if words := _postprocess_of(loaded):
        print(f"post-processing, as chosen on validation: {words}")

"""What `vpt predict` and `vpt watch` tell of their answers: sentences, an orderly end, the page of a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vpt.cli.shared import usage
from vpt.errors import VptError
from vpt.words import agreeing, listed

if TYPE_CHECKING:
    from vpt.use.archives import Asked, Beside, ModelMark, Outcome
    from vpt.use.classifier import Classifier
    from vpt.use.segmenter import Segmenter


@contextmanager
def ended_in_order(how_on: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM leave whole masks and their record: exit code 130 or 143."""
    from vpt.engine.signals import Interrupted, heed_signals

    try:
        with heed_signals() as signals, signals.at_once():
            yield
    except Interrupted as ended:
        print(f"interrupted; {how_on}", file=sys.stderr)
        raise typer.Exit(ended.code) from ended


def tell(outcome: Outcome, asked: Asked, seconds: float, stream: Any) -> None:
    from vpt.scores.trust import flags_told

    part = f"{asked.part} ({asked.part.by}): " if asked.part.by else ""
    print(
        f"{part}{outcome.answered} of {outcome.total} scans {outcome.verb} in {seconds:.1f} s: {outcome.out}",
        file=stream,
    )
    if outcome.before:
        were, are = (agreeing(outcome.before, verb) for verb in ("were", "are"))
        kept = f"{were} done before and {are} unchanged"
        how = "had a mask before, which stays" if asked.existing == "skip" else kept
        print(f"{outcome.before} of them {how}", file=stream)
    table = outcome.out / "quality.csv"
    if asked.beside.quality and table.is_file() and (told := flags_told(table.read_text("utf-8"))):
        print(f"{table}: {told}", file=stream)
    for text in (*outcome.doubts, *outcome.notes):
        print(f"warning: {text}", file=sys.stderr)
    for failure in outcome.failures:
        print(f"failed: {failure.reason}", file=sys.stderr)


def require_folder(out: Path, option: str) -> None:
    from vpt.use.archives.outputs import is_single

    if is_single(out):
        usage(f"-o {out}: {option}; give a folder as the output")


def with_limits(asked: Asked, loaded: Segmenter | Classifier, mark: ModelMark, tta: bool) -> Asked:
    """`asked` with the limits of these models' quality; where there are none, that is said."""
    from vpt.use.classifier import Classifier
    from vpt.use.folds import is_of_folds
    from vpt.use.limits import find_limits, places_of_limits, require_different

    if isinstance(loaded, Classifier):
        return asked
    require_different(mark.artifacts)
    task = getattr(loaded, "told", None)
    limits = find_limits(mark.artifacts, tta, task)
    runs = " ".join(str(place) for place in places_of_limits(mark.artifacts, task))
    if limits is None and len(mark.artifacts) > 1 and all(is_of_folds(path.parent.parent) for path in mark.artifacts):
        print(
            "warning: folds have no limits, since each has trained on what another validates; nothing is flagged",
            file=sys.stderr,
        )
    elif limits is None and not runs:
        print(
            f"warning: {task} has no limits, since later tasks trained its prompts on; nothing is flagged",
            file=sys.stderr,
        )
    elif limits is None:
        options = "".join([" --mean" if len(mark.artifacts) > 1 else "", " --quality", " --tta" if tta else ""])
        print(
            f"warning: no limits yet, so nothing is flagged; choose them: vpt evaluate {runs}{options}", file=sys.stderr
        )
    if loaded.known is None:
        print(
            "warning: no distance: the model keeps no training cases, as those from before version 0.6 and of "
            "train.keep_cases=false; train it again",
            file=sys.stderr,
        )
    return replace(asked, beside=replace(asked.beside, limits=limits))


def require_one_task(loaded: Segmenter | Classifier, beside: Beside) -> None:
    """Raise VptError where a model of several tasks is asked for what is of one, before it is asked of every scan."""
    from vpt.use.by_task import SegmenterByTask

    asked = [f"--{name}" for name in ("quality", "probabilities") if getattr(beside, name)]
    if isinstance(loaded, SegmenterByTask) and loaded.told is None and asked:
        raise VptError(
            f"{asked[0]}: the model has learned {listed(loaded.members, 10)}, which have no probabilities in common; "
            "say which task all scans are of (--task)"
        )


def require_masks(loaded: Segmenter | Classifier) -> None:
    from vpt.use.segmenter import Segmenter

    if not isinstance(loaded, Segmenter):
        usage("--viewer: shows masks, and the model classifies; leave it out")


def write_page(loaded: Segmenter | Classifier, scans: list[Path], out: Path, asked: Asked, viewer: bool) -> Path:
    """The page of all that the folder's record holds; of what was predicted before, only these scans are pictures."""
    from vpt.progress import bar
    from vpt.use.archives.finding import find_archive
    from vpt.use.classifier import Classifier
    from vpt.use.pages.predictions import write_predictions_page
    from vpt.use.scored_splits import origin_in_words

    plan, weights = loaded.plan, origin_in_words(loaded.model) or ""
    with bar("drawing the report") as tick:
        if isinstance(loaded, Classifier):
            return write_predictions_page(out, {}, progress=tick, command=sys.argv, weights=weights)
        found = find_archive(scans, plan.kind, plan.channels, out, asked.series, asked.recursive)
        return write_predictions_page(out, loaded.labels, found.cases, plan, tick, viewer, sys.argv, weights)

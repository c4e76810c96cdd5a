"""`vpt watch`"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.loading import Loading, form_of, load_marked, precision_of, say_chosen
from vpt.cli.predict import (
    As,
    Force,
    KnownTask,
    Mean,
    Precision,
    Preview,
    Probabilities,
    Recursive,
    Series,
    require_table,
)
from vpt.cli.shared import Decide, Device, MirrorImages, RunsOrArtifacts, Weights, decision_of, usage
from vpt.progress import say


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder into which scans are put.")],
    models: RunsOrArtifacts,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the masks, or of the table, and the record.")],
    settle: Annotated[float, typer.Option(help="Seconds in which none of a scan's files has changed.")] = 10.0,
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 5.0,
    mean: Mean = False,
    tta: MirrorImages = False,
    decide: Decide = "auto",
    device: Device = "auto",
    weights: Weights = None,
    recursive: Recursive = False,
    precision: Precision = None,
    force: Force = False,
    task: KnownTask = None,
    series: Series = None,
    as_: As = "own",
    probabilities: Probabilities = False,
    preview: Preview = False,
) -> None:
    """Answer every scan that is put into a folder, until Ctrl-C or SIGTERM, which the present scan still outlasts.

    What was done stands in the record of the output, so that a restart goes on where it was.
    """
    from vpt.engine.signals import heed_signals
    from vpt.errors import VptError
    from vpt.use.archives import Asked, Beside
    from vpt.use.archives.batches import batch_of
    from vpt.use.archives.watching import Resting, Watch
    from vpt.use.classifier import Classifier

    if len(models) > 1 and not mean:
        usage(f"-m {' -m '.join(models)}: several models; add --mean to average their probabilities, or give one")
    form = form_of(as_)
    loading = Loading(models, device, weights, precision_of(precision), tta=tta, task=task, decide=decision_of(decide))
    if settle < 0 or every <= 0:
        usage(f"--settle {settle:g} --every {every:g}: expected seconds above 0")
    if not folder.is_dir():
        raise VptError(f"{folder}: no such folder; make it, or give the one that scans are put into")
    asked = Asked(
        series=series,
        recursive=recursive,
        form=form,
        force=force,
        existing="continue",
        beside=Beside(probabilities, preview),
    )
    loaded, mark = load_marked(loading, asked)
    if isinstance(loaded, Classifier):
        require_table(asked)
    say_chosen(loaded, loading.decide)
    watching = Watch(folder, out, loaded, batch_of(loaded, out, asked, mark), Resting(settle), say=say)
    with heed_signals(partial(say, "ends after the present scan; once more ends it at once")) as signals:
        say(f"watching {folder}: answers go to {out}; Ctrl-C ends it")
        watching.run(lambda: signals.number is not None, lambda: signals.wait(every))
    say("ended; the same command goes on")

"""`vpt predict`"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from vpt.cli.answers import (
    ended_in_order,
    require_folder,
    require_masks,
    require_one_task,
    tell,
    with_limits,
    write_page,
)
from vpt.cli.engines import Engine, Workers, spread_over
from vpt.cli.shared import (
    Decide,
    Device,
    MirrorImages,
    Postprocess,
    RunsOrArtifacts,
    Viewer,
    Weights,
    decision_of,
    is_postprocessed,
    usage,
)
from vpt.vocabulary import DECIDED, AskedDecision

if TYPE_CHECKING:
    from vpt.use.archives import Asked, ModelMark, Outcome
    from vpt.use.archives.batch import Existing, Spread
    from vpt.use.classifier import Classifier
    from vpt.use.segmenter import Segmenter

Precision = Annotated[
    str | None, typer.Option(help="auto, 32-true, bf16-mixed, 16-mixed; default: as the training was told.")
]
Mean = Annotated[bool, typer.Option("--mean", help="Of several models (-m A -m B): average probabilities.")]
Merge = Annotated[
    bool,
    typer.Option("--merge", help="Of several models on one encoder: one mask, in which the first one counts."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Only warn of values or voxel sizes that are unlike those of the training.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="torch.compile: a minute or more at first, then some percent faster.")
]
KnownTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Of a model that learned several tasks (vpt train --continue): the one that all scans are of.",
    ),
]
Series = Annotated[
    str | None, typer.Option(help="Of several DICOM series in a folder: a number, a description, or largest.")
]
As = Annotated[str, typer.Option("--as", help="own (NIfTI, PNG), or of DICOM: dicom-seg, dicom-seg-labelmap.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Subfolders as well; answers lie in the same ones.")]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="In probabilities/ a 4-D NIfTI for each mask, of every label.")
]
Preview = Annotated[bool, typer.Option("--preview", help="In previews/ a picture of three slices for each mask.")]
Quality = Annotated[
    bool,
    typer.Option("--quality", help="quality.csv: how far each mask is to be trusted, and what is flagged."),
]
Paged = Annotated[
    bool, typer.Option("--report", help="report.html of the folder: failures, then the most unusual masks, all scans.")
]


def predict(
    scans: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            help="A scan (.nii.gz, .nrrd, .mha; DICOM: folder or .zip), an image, or a folder of them (repeat).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A folder, or for one scan FILE.nii.gz (.nrrd, .mha of such; image: FILE.png); classes: FILE.csv, -.",
        ),
    ],
    models: RunsOrArtifacts,
    mean: Mean = False,
    merge: Merge = False,
    tta: MirrorImages = False,
    decide: Decide = "auto",
    postprocess: Postprocess = "auto",
    device: Device = "auto",
    weights: Weights = None,
    recursive: Recursive = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there already.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Do only the scans without a mask.")] = False,
    resume: Annotated[
        bool, typer.Option("--continue", help="Do what is not done yet, has changed or failed, by the folder's record.")
    ] = False,
    skip_failed: Annotated[
        bool, typer.Option("--skip-failed", help="With --continue: what failed before is only listed.")
    ] = False,
    num_parts: Annotated[int | None, typer.Option(help="Share the scans among so many processes.")] = None,
    part_id: Annotated[int | None, typer.Option(help="Which part this process does, from 0.")] = None,
    precision: Precision = None,
    force: Force = False,
    compile_: Compile = False,
    task: KnownTask = None,
    series: Series = None,
    as_: As = "own",
    probabilities: Probabilities = False,
    preview: Preview = False,
    quality: Quality = False,
    report: Paged = False,
    viewer: Viewer = False,
    engine: Engine = "local",
    workers: Workers = None,
) -> None:
    """Segment new scans, every mask on its scan's own grid, or classify them into a CSV of probabilities.

    Several models on one encoder (-m liver=RUN -m tumour=RUN) are tasks, each with a folder of masks of its own.
    A scan that fails stops no other (exit code 1). A folder of answers holds their record: predictions.json, .csv,
    failures.json, log.txt.
    """
    from vpt.use.archives import Asked, Beside, part_of

    several = len(models) > 1 and not mean
    check_words(models, mean or several, precision, as_)
    decision = decision_of(decide)
    if merge and not several:
        usage("--merge: goes with several models, and without --mean; give each with -m")
    if not several:
        require_unnamed(models)
    if viewer and not report:
        usage("--viewer: is part of the page; add --report")
    for given, option in ((report, "--report is the page of a folder"), (quality, "--quality is of a folder")):
        if given:
            require_folder(out, option)
    if quality and several:
        usage("--quality: not for several models side by side; give one model, or --mean")
    existing = _existing(overwrite, skip_existing, resume)
    if skip_failed and existing != "continue":
        usage("--skip-failed: goes with --continue, which knows what failed before")
    asked = Asked(
        series=series,
        recursive=recursive,
        form=cast(Any, as_),
        force=force,
        existing=existing,
        skip_failed=skip_failed,
        beside=Beside(probabilities, preview, quality),
        part=part_of(num_parts, part_id, os.environ),
    )
    tidy = is_postprocessed(postprocess)
    if several:
        from vpt.cli.tasks import Loading, predict_tasks

        require_plain(tta, compile_, engine, task, decision)
        loading = Loading(models, device, weights, precision, tidy, decision)
        raise typer.Exit(predict_tasks(loading, scans, out, asked, merge, report, viewer))
    loaded, mark = load_marked(models, device, weights, precision, compile_, tta, asked, tidy, task, decision)
    require_one_task(loaded, asked.beside)
    if quality:
        asked = with_limits(asked, loaded, mark, tta)
    if viewer:
        require_masks(loaded)
    arguments = {
        "weights": weights and weights.absolute(),
        "precision": precision,
        "compile": compile_,
        "tta": tta,
        "decide": decision,
        "postprocess": tidy,
        "task": task,
    }
    spread = spread_over(engine, workers, arguments | {"device": loaded.device.type}, out, asked, mark)
    started = time.perf_counter()
    with ended_in_order(f"{out}: the same command with --continue goes on"):
        say_chosen(loaded, decision)
        outcome = _predict(loaded, scans, out, asked, mark, spread)
    tell(outcome, asked, time.perf_counter() - started, stream=sys.stderr if str(out) == "-" else sys.stdout)
    if report:
        print(f"report: {write_page(loaded, scans, out, asked, viewer)}")
    raise typer.Exit(1 if outcome.failures else 0)


def check_words(models: list[str], mean: bool, precision: str | None, form: str) -> None:
    from vpt.readers import Form
    from vpt.vocabulary import Precision

    if precision not in (None, *get_args(Precision)):
        usage(f"--precision {precision}: expected {', '.join(get_args(Precision))}")
    if form not in get_args(Form):
        usage(f"--as {form}: expected {', '.join(get_args(Form))}")
    if len(models) > 1 and not mean:
        usage(f"-m {' -m '.join(models)}: several models; add --mean to average their probabilities, or give one")


def require_unnamed(models: list[str]) -> None:
    """Names are of tasks that stand side by side."""
    for given in models:
        path = given.partition("=")[2]
        if path and not Path(given).exists() and Path(path).exists():
            usage(f"-m {given}: a name is of one of several models side by side, without --mean; give -m {path}")


def require_plain(tta: bool, compile_: bool, engine: str, task: str | None, decide: AskedDecision) -> None:
    """What several tasks side by side have no form of."""
    asked = {
        "--tta": tta,
        "--compile": compile_,
        "--decide dice": decide == "dice",
        f"--engine {engine}": engine != "local",
        f"--task {task}": bool(task),
    }
    for option, given in asked.items():
        if given:
            usage(f"{option}: not for several models side by side; give one model, or --mean")


def _existing(overwrite: bool, skip: bool, resume: bool) -> Existing:
    if overwrite + skip + resume > 1:
        usage("--overwrite, --skip-existing, --continue: give one of them")
    return "overwrite" if overwrite else "skip" if skip else "continue" if resume else "refuse"


def load_marked(
    models: list[str],
    device: str,
    weights: Path | None,
    precision: str | None,
    compile_: bool,
    tta: bool,
    asked: Asked,
    postprocess: bool = True,
    task: str | None = None,
    decide: AskedDecision = "auto",
) -> tuple[Segmenter | Classifier, ModelMark]:
    """The model, and the mark that its answers are recorded with."""
    from vpt.artifact import find_artifact
    from vpt.use.archives import ModelMark, loaded_whole
    from vpt.use.load import load
    from vpt.use.models import models_in

    chosen = [find_artifact(path) for path in models_in(models)]
    given = (device, weights, cast(Any, precision), compile_, tta, postprocess, task, decide)
    loaded, hashes = loaded_whole(chosen, lambda: load(chosen, *given))
    settings: dict[str, Any] = {
        "tta": tta,
        "force": asked.force,
        "as": asked.form,
        "series": asked.series,
        "precision": precision,
        "compile": compile_,
        "device": loaded.device.type,
    }
    if task is not None:
        settings["task"] = task
    if (decision := _decision_of(loaded)) != "likeliest":
        settings["decide"] = decision
    if words := _postprocess_of(loaded):
        settings["postprocess"] = words
    elif not postprocess:
        settings["postprocess"] = "none"
    return loaded, ModelMark.of(chosen, settings, hashes)


def _postprocess_of(loaded: Segmenter | Classifier) -> str:
    """What is done with its masks, in words; "" where that is nothing."""
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


def _predict(
    loaded: Segmenter | Classifier,
    scans: list[Path],
    out: Path,
    asked: Asked,
    mark: ModelMark,
    spread: Spread | None,
) -> Outcome:
    from vpt.progress import bar
    from vpt.use.archives import classify_archive, segment_archive
    from vpt.use.classifier import Classifier

    if not isinstance(loaded, Classifier):
        with bar("segmenting") as tick:
            return segment_archive(loaded, scans, out, asked, mark, tick, spread)
    require_table(asked)
    with bar("classifying") as tick:
        return classify_archive(loaded, scans, out, asked, mark, tick, spread)


def require_table(asked: Asked) -> None:
    """What goes with masks only is a mistake where the model classifies."""
    if asked.form != "own":
        usage(f"--as {asked.form}: the model classifies, and its answer is a table; leave it out")
    if asked.existing == "skip":
        usage("--skip-existing: classes go into one CSV; go on with --continue, or replace it with --overwrite")
    if asked.beside.probabilities or asked.beside.preview or asked.beside.quality:
        usage("--probabilities, --preview, --quality: the model classifies, and its answer is a table; leave them out")

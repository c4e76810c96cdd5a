"""`vpt predict`"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from vpt.cli.loading import Loading, form_of, load_marked, precision_of, say_chosen
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
    from vpt.report.own_results import PAGE, require_own_page
    from vpt.use.archives import Asked, Beside, part_of

    several = len(models) > 1 and not mean
    form = form_of(as_)
    loading = Loading(
        models,
        device,
        weights,
        precision_of(precision),
        compile_,
        tta,
        is_postprocessed(postprocess),
        task,
        decision_of(decide),
    )
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
    if report:
        require_own_page(out / PAGE)
    existing = _existing(overwrite, skip_existing, resume)
    if skip_failed and existing != "continue":
        usage("--skip-failed: goes with --continue, which knows what failed before")
    asked = Asked(
        series=series,
        recursive=recursive,
        form=form,
        force=force,
        existing=existing,
        skip_failed=skip_failed,
        beside=Beside(probabilities, preview, quality),
        part=part_of(num_parts, part_id, os.environ),
    )
    if several:
        from vpt.cli.tasks import predict_tasks

        require_plain(loading, engine)
        raise typer.Exit(predict_tasks(loading, scans, out, asked, merge, report, viewer))
    loaded, mark = load_marked(loading, asked)
    require_one_task(loaded, asked.beside)
    if quality:
        asked = with_limits(asked, loaded, mark, tta)
    if viewer:
        require_masks(loaded)
    spread = spread_over(engine, workers, loading.arguments | {"device": loaded.device.type}, out, asked, mark)
    started = time.perf_counter()
    with ended_in_order(f"{out}: the same command with --continue goes on"):
        say_chosen(loaded, loading.decide)
        outcome = _predict(loaded, scans, out, asked, mark, spread)
    tell(outcome, asked, time.perf_counter() - started, stream=sys.stderr if str(out) == "-" else sys.stdout)
    if report:
        print(f"report: {write_page(loaded, scans, out, asked, viewer)}")
    raise typer.Exit(1 if outcome.failures else 0)


def require_unnamed(models: list[str]) -> None:
    """Names are of tasks that stand side by side."""
    for given in models:
        path = given.partition("=")[2]
        if path and not Path(given).exists() and Path(path).exists():
            usage(f"-m {given}: a name is of one of several models side by side, without --mean; give -m {path}")


def require_plain(loading: Loading, engine: str) -> None:
    """Refuse options that several tasks side by side have no form of."""
    asked = {
        "--tta": loading.tta,
        "--compile": loading.compile,
        "--decide dice": loading.decide == "dice",
        f"--engine {engine}": engine != "local",
        f"--task {loading.task}": bool(loading.task),
    }
    for option, given in asked.items():
        if given:
            usage(f"{option}: not for several models side by side; give one model, or --mean")


def _existing(overwrite: bool, skip: bool, resume: bool) -> Existing:
    if overwrite + skip + resume > 1:
        usage("--overwrite, --skip-existing, --continue: give one of them")
    return "overwrite" if overwrite else "skip" if skip else "continue" if resume else "refuse"


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
    """Refuse options that only go with masks, where the model classifies."""
    if asked.form != "own":
        usage(f"--as {asked.form}: the model classifies, and its answer is a table; leave it out")
    if asked.existing == "skip":
        usage("--skip-existing: classes go into one CSV; go on with --continue, or replace it with --overwrite")
    if asked.beside.probabilities or asked.beside.preview or asked.beside.quality:
        usage("--probabilities, --preview, --quality: the model classifies, and its answer is a table; leave them out")

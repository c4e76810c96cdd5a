"""`vpt evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vpt.cli.shared import Device, MirrorImages, Weights, console, usage


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN | FOLDS | MASKS TRUTH",
            help="A run's folder (its test split is segmented), a folder of folds, or masks and the true masks.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for summary.json and cases.csv.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels to score, for example 1,2; default: dataset.json's.")
    ] = None,
    folds: Annotated[
        bool, typer.Option("--folds", help="Several runs, one for each fold: each scores the cases it validates.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Of a run: test or val; default: test, or val without one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Of a run: where its data set lies now.")] = None,
    tolerance: Annotated[float, typer.Option(help="Of NSD, in mm (of images: pixels).")] = 1.0,
    empty: Annotated[str, typer.Option(help="Score where a label is absent in both: nan, one or zero.")] = "nan",
    oracle_box: Annotated[
        bool, typer.Option("--oracle-box", help="Of a run: tell it the reference's box; the title says so.")
    ] = False,
    tta: MirrorImages = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of two folders: every reference needs a mask.")] = False,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Dice, IoU, HD95, NSD and volumes per case and label on the scans' own grid: a table, a page, JSON and CSV."""
    from vpt.progress import bar
    from vpt.use.evaluation import evaluate as score
    from vpt.use.folds import is_of_folds
    from vpt.use.pages.evaluation import write_evaluation_page

    of_folds = folds or (len(paths) == 1 and is_of_folds(paths[0]))
    if len(paths) > 2 and not folds:
        usage(f"{len(paths)} folders: expected a run, or masks and true masks; add --folds to runs of folds")
    if (oracle_box or tta) and len(paths) > 1 and not folds:
        usage(f"{'--oracle-box' if oracle_box else '--tta'} needs a run, not two folders of masks")
    if of_folds and split is not None:
        usage(f"--split {split}: every fold scores the cases that it validates; leave it out")
    settings: dict[str, Any] = {"tolerance": tolerance, "empty": empty}
    of_runs: dict[str, Any] = {"data": data, "device": device, "weights": weights, "oracle_box": oracle_box, "tta": tta}
    with bar("evaluating") as tick:
        if of_folds:
            from vpt.use.cross_validation import evaluate_folds

            given = paths[0] if len(paths) == 1 and is_of_folds(paths[0]) else paths
            report, folder = evaluate_folds(given, out, progress=tick, **of_runs, **settings)
        elif len(paths) == 1:
            from vpt.use.runs import evaluate_run

            report, folder = evaluate_run(paths[0], split=split, out=out, progress=tick, **of_runs, **settings)
        else:
            predictions, references = paths
            report = score(predictions, references, _labels(labels), strict=strict, progress=tick, **settings)
            folder = out or (predictions if predictions.is_dir() else predictions.parent)
    console().print(report.table())
    saved = report.save(folder)
    run = paths[0] if len(paths) == 1 and not of_folds else None
    with bar("drawing the report") as tick:
        page = write_evaluation_page(folder, run, data, tick)
    print(f"written: {saved}, {folder / 'cases.csv'}, {page}")


def _labels(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.strip().isdigit() for part in text.split(",")):
        usage(f"--labels {text}: expected whole numbers, for example 1,2")
    return [int(part) for part in text.split(",")]

"""`vpt evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vpt.cli.shared import Device, Weights, console, usage


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="A run's folder (its test split is segmented), or masks.")],
    references: Annotated[Path | None, typer.Argument(help="The folder of true masks, or one file.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for summary.json and cases.csv.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels to score, for example 1,2; default: dataset.json's.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of a run: test or val.")] = "test",
    data: Annotated[Path | None, typer.Option(help="Of a run: where its data set lies now.")] = None,
    tolerance: Annotated[float, typer.Option(help="Of NSD, in mm (of images: pixels).")] = 1.0,
    empty: Annotated[str, typer.Option(help="Score where a label is absent in both: nan, one or zero.")] = "nan",
    oracle_box: Annotated[
        bool, typer.Option("--oracle-box", help="Of a run: tell it the reference's box; the title says so.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of two folders: every reference needs a mask.")] = False,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Dice, IoU, HD95, NSD and volumes per case and label on the scans' own grid: a table, summary.json, cases.csv."""
    from vpt.progress import bar
    from vpt.use.evaluation import evaluate as score

    if oracle_box and references is not None:
        usage("--oracle-box needs a run, not two folders of masks")
    settings: dict[str, Any] = {"tolerance": tolerance, "empty": empty}
    with bar("evaluating") as tick:
        if references is None:
            from vpt.use.runs import evaluate_run

            report, folder = evaluate_run(
                predictions,
                split=split,
                data=data,
                out=out,
                device=device,
                weights=weights,
                oracle_box=oracle_box,
                progress=tick,
                **settings,
            )
        else:
            report = score(predictions, references, _labels(labels), strict=strict, progress=tick, **settings)
            folder = out or (predictions if predictions.is_dir() else predictions.parent)
    console().print(report.table())
    saved = report.save(folder)
    print(f"written: {saved}, {folder / 'cases.csv'}")


def _labels(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.strip().isdigit() for part in text.split(",")):
        usage(f"--labels {text}: expected whole numbers, for example 1,2")
    return [int(part) for part in text.split(",")]

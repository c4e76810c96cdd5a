"""`vpt evaluate`"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vpt.cli.shared import (
    Decide,
    Device,
    MirrorImages,
    PatientsPattern,
    Viewer,
    Weights,
    console,
    decision_of,
    is_postprocessed,
    light_imports,
    usage,
)
from vpt.words import either

EMPTY = ("nan", "one", "zero")
OVERLAP = 0.5  # that of vpt.scores.lesions, which `--help` does not load
Kind = Literal["run", "mean", "runs", "folds", "masks", "two masks"]


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN | FOLDS | MASKS TRUTH | RUN RUN | RUN RUN .. --mean | MASKS MASKS TRUTH",
            help="A run's folder (its test split is segmented), a folder of folds, or masks and the true masks. Two "
            "runs, or two folders of masks and the truth, are compared case by case. A folder of `vpt compare` stands "
            "for the run that won.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for summary.json, cases.csv and evaluation.md.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels to score: 1,2, or liver,tumor of dataset.json; default: all of it.")
    ] = None,
    folds: Annotated[
        bool, typer.Option("--folds", help="Several runs, one for each fold: each scores the cases it validates.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Of a run: test or val; default: test, or val without one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Of a run: where its data set lies now.")] = None,
    tolerance: Annotated[
        str, typer.Option(help="Of NSD, in mm (of images: pixels); also by label: 1 or liver=3,tumor=2.")
    ] = "1",
    lesions: Annotated[
        str | None, typer.Option(help="Labels that are looked at lesion by lesion as well: tumor, or all.")
    ] = None,
    lesion_overlap: Annotated[
        float, typer.Option("--lesion-overlap", help="IoU from which on a predicted lesion is the true one.")
    ] = OVERLAP,
    by: Annotated[
        str | None, typer.Option(help="Scores by group: columns of the data set's list or of --groups (sex,site).")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="A CSV with a column `case` (or `patient`) and that of --by.")
    ] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help="Of a run, or several (--mean): which cases to trust, risk against coverage, limits for vpt predict.",
        ),
    ] = False,
    mean: Annotated[bool, typer.Option("--mean", help="Several runs on one split as one: mean probabilities.")] = False,
    patients: PatientsPattern = None,
    empty: Annotated[str, typer.Option(help="Score where a label is absent in both: nan, one or zero.")] = "nan",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases that are scored at a time; default: the cores, 4 at most.")
    ] = None,
    oracle_box: Annotated[
        bool, typer.Option("--oracle-box", help="Of a run: tell it the reference's box; the title says so.")
    ] = False,
    tta: MirrorImages = False,
    decide: Decide = "auto",
    postprocess: Annotated[
        str,
        typer.Option(
            help="auto: masks as the training chose to tidy them (train.postprocess), none: as the model has them. "
            "choose: of a finished run, choose it (and --decide) now on its validation cases, to be done from then on."
        ),
    ] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Of folders: every reference needs a mask.")] = False,
    viewer: Viewer = False,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Dice, IoU, precision, recall, NSD, HD95, ASSD and volumes per case and label on the scans' own grid, by lesion
    and by group where asked: tables, summary.json, cases.csv (the worst first), evaluation.md, report.html.
    """
    paths, out = _winners(paths, out)
    kind = _kind(paths, folds, mean)
    of_runs = kind in ("run", "mean", "runs", "folds")
    compared = kind in ("runs", "two masks")
    for wrong, why in (
        (empty not in EMPTY, f"--empty {empty}: expected {either(EMPTY)}"),
        (not 0 < lesion_overlap <= 1, f"--lesion-overlap {lesion_overlap:g}: expected an IoU above 0 and up to 1"),
        (oracle_box and not of_runs, "--oracle-box needs a run, not folders of masks"),
        (tta and not of_runs, "--tta needs a run, not folders of masks"),
        (decide != "auto" and not of_runs, f"--decide {decide}: needs a run, not folders of masks"),
        (postprocess != "auto" and not of_runs, "--postprocess needs a run, not folders of masks"),
        (split is not None and not of_runs, f"--split {split}: is of a run; of folders of masks all are scored"),
        (data is not None and not of_runs, f"--data {data}: is of a run, whose data set lies elsewhere now"),
        (weights is not None and not of_runs, f"--weights {weights}: is of a run; masks are scored without a model"),
        (strict and of_runs, "--strict: is of folders; of a run every case is segmented and scored"),
        (
            lesion_overlap != OVERLAP and lesions is None,
            f"--lesion-overlap {lesion_overlap:g}: of which label's lesions? Add --lesions LABEL, or all",
        ),
        (patients is not None and of_runs, f"--patients {patients}: a run knows its patients; leave it out"),
        (labels is not None and of_runs, f"--labels {labels}: a run scores all that it was trained on; leave it out"),
        (split is not None and kind == "folds", f"--split {split}: every fold scores what it validates; leave it out"),
        (groups is not None and by is None, f"--groups {groups}: of which column? Add --by COLUMN"),
        (by is not None and compared, f"--by {by}: two are compared as a whole; evaluate each by itself"),
        (postprocess == "choose" and kind != "run", "--postprocess choose: is of one run; choose for each by itself"),
        (
            out is not None and out.suffix.lower() in (".json", ".csv", ".md", ".html") and not out.is_dir(),
            f"--out {out}: is a folder, in which summary.json, cases.csv, evaluation.md and report.html are put; "
            f"give {out.parent if out is not None and str(out.parent) != '.' else 'scores'}",
        ),
        (
            out is not None and out.exists() and not out.is_dir(),
            f"--out {out}: is a file, in whose place no folder of scores can be made; give another",
        ),
        (quality and kind not in ("run", "mean"), "--quality: is of one run, or with --mean of several as one"),
        (quality and oracle_box, "--quality: is of masks that nobody helped with; leave --oracle-box out"),
        (lesions is not None and compared, f"--lesions {lesions}: are not compared; evaluate each by itself"),
    ):
        if wrong:
            usage(why)
    if of_runs and viewer and _classifies(paths[0]):
        usage("--viewer: shows masks, and the run classifies; leave it out")
    with light_imports():
        import scipy.ndimage
        import scipy.spatial  # noqa: F401  # both are used by every score

        from vpt.progress import bar
        from vpt.readers import import_library
        from vpt.use.pages.evaluation import write_evaluation_page

        import_library("volumes")
    settings: dict[str, Any] = {
        **_tolerances(tolerance),
        "empty": empty,
        "lesions": _names(lesions),
        "lesion_overlap": lesion_overlap,
        "workers": workers,
        **({"by": by, "groups": groups} if by is not None else {}),
    }
    of_a_run = {"data": data, "device": device, "weights": weights, "oracle_box": oracle_box, "tta": tta}
    of_a_run["decide"] = decision_of(decide)
    if postprocess == "choose":
        _choose_postprocess(paths[0], data, device)
    of_a_run["postprocess"] = postprocess == "choose" or is_postprocessed(postprocess)
    of_masks = {"labels": _labels(labels), "strict": strict, "patients": patients}
    with bar("evaluating") as tick:
        options = settings | (of_a_run if of_runs else of_masks) | {"progress": tick}
        if kind in ("run", "mean", "runs"):
            options["split"] = split
        if quality:
            options["quality"] = True
        report, folder = _evaluated(kind, paths, out, options)
    console().print(report.table())
    saved = report.save(folder)
    with bar("drawing the report") as tick:
        if compared:
            from vpt.use.pages.paired import write_paired_page

            page = write_paired_page(folder, report, paths[0] if kind == "runs" else None, data, tick, viewer, sys.argv)
            print(f"written: {saved}, comparison.csv, comparison.md, {page.name}")
            return
        page = write_evaluation_page(folder, paths[0] if kind == "run" else None, data, tick, viewer, sys.argv)
    also = ", quality.csv" if quality else ""
    print(f"written: {saved}, cases.csv, evaluation.md{also}, {page.name}")


def _winners(paths: list[Path], out: Path | None) -> tuple[list[Path], Path | None]:
    """Comparisons replaced by the run that won; of one alone the scores go into its own folder `winner`."""
    from vpt.use.models import is_comparison, winner_of

    if len(paths) == 1 and is_comparison(paths[0]):
        out = out or paths[0] / "winner"
    return [winner_of(path) if is_comparison(path) else path for path in paths], out


def _choose_postprocess(run: Path, data: Path | None, device: str) -> None:
    """As if the training had had `train.postprocess=auto`: the run is concluded anew, nothing is trained."""
    from vpt.engine.folder import standing_of
    from vpt.engine.run import train
    from vpt.errors import VptError

    if data is not None:
        usage(f"--data {data}: the choice is made where the data set of the training lies; leave one of the two out")
    if not (run / "config.yaml").is_file() or standing_of(run) != "done":
        raise VptError(f"{run}: no run that is at its end; finish it with `vpt train --resume --out {run}`")
    train(None, run, resume=True, overrides={"train.postprocess": "auto", "device": device})


def _classifies(run: Path) -> bool:
    """Whether a run, or folds, answer with classes."""
    from vpt.config import load_written

    written = run / "config.yaml"
    return written.is_file() and load_written(written).task == "classification"


def _kind(paths: list[Path], folds: bool, mean: bool) -> Kind:
    """What is to be evaluated; what is none of it ends in a sentence on how to say it."""
    from vpt.use.folds import is_of_folds, is_run

    if mean:
        if folds or len(paths) < 2 or not all(map(is_run, paths)):
            usage("--mean: expected several runs on one split, such as seeds of one training")
        return "mean"
    if folds or (len(paths) == 1 and is_of_folds(paths[0])):
        return "folds"
    if len(paths) == 1:
        return "run"
    runs = [path for path in paths if is_run(path)]
    if len(runs) == len(paths) == 2:
        return "runs"
    if len(paths) > 3 or (runs and len(runs) == len(paths)):
        usage(f"{len(paths)} folders: expected a run, masks and their truth, or two of these; --folds takes more runs")
    if runs:
        usage(f"{runs[0]} is a run, and others are none; give one or two runs, or masks and the true masks")
    return "masks" if len(paths) == 2 else "two masks"


def _evaluated(kind: Kind, paths: list[Path], out: Path | None, options: dict[str, Any]) -> tuple[Any, Path]:
    """The report, and the folder to save it in."""
    if kind == "folds":
        from vpt.use.cross_validation import evaluate_folds
        from vpt.use.folds import is_of_folds

        return evaluate_folds(paths[0] if len(paths) == 1 and is_of_folds(paths[0]) else paths, out, **options)
    if kind in ("run", "mean"):
        from vpt.use.runs import evaluate_run

        return evaluate_run(paths[0] if kind == "run" else paths, out=out, **options)
    if kind == "masks":
        from vpt.use.evaluation import evaluate as score

        predictions, references = paths
        return score(predictions, references, **options), out or (
            predictions if predictions.is_dir() else predictions.parent
        )
    from vpt.use.paired import compare_masks, compare_runs

    first, second, *truth = paths
    folder = out or first.parent / f"{first.resolve().name}-{second.resolve().name}"
    report = compare_masks(first, second, *truth, **options) if truth else compare_runs(first, second, **options)
    return report, folder


def _tolerances(text: str) -> dict[str, Any]:
    """`1`, `liver=3,tumor=2`, or both: the tolerance of all labels, and those of some."""
    found: dict[str, Any] = {"tolerances": {}}
    for part in text.split(","):
        name, _, number = part.strip().rpartition("=")
        try:
            distance = float(number)
        except ValueError:
            usage(f"--tolerance {text}: expected mm, such as 1, or mm by label, such as liver=3,tumor=2")
        if name:
            found["tolerances"][name.strip()] = distance
        else:
            found["tolerance"] = distance
    return found


def _names(text: str | None) -> str | list[str]:
    return text if text == "all" else [name.strip() for name in text.split(",")] if text else []


def _labels(text: str | None) -> list[int | str] | None:
    """Numbers, and names that dataset.json knows."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        usage(f"--labels {text}: expected numbers or names of labels with commas between, for example 1,2")
    return [int(part) if re.fullmatch("[0-9]{1,18}", part) else part for part in parts]

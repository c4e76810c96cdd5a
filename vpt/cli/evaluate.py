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
from vpt.words import either, listed

EMPTY = ("nan", "one", "zero")
OVERLAP = 0.5  # that of vpt.scores.lesions, which `--help` does not load

Kind = Literal["run", "mean", "runs", "folds", "masks", "two masks"]
OF_RUNS: tuple[Kind, ...] = ("run", "mean", "runs", "folds")
OF_MASKS: tuple[Kind, ...] = ("masks", "two masks")
COMPARED: tuple[Kind, ...] = ("runs", "two masks")
ALONE: tuple[Kind, ...] = ("run", "mean", "folds", "masks")  # what is scored by itself

# An option, the kinds that it says something of, and what is said where it is given of another.
NEEDS: tuple[tuple[str, tuple[Kind, ...], str], ...] = (
    ("oracle_box", OF_RUNS, "--oracle-box needs a run, not folders of masks"),
    ("tta", OF_RUNS, "--tta needs a run, not folders of masks"),
    ("decide", OF_RUNS, "--decide {}: needs a run, not folders of masks"),
    ("postprocess", OF_RUNS, "--postprocess needs a run, not folders of masks"),
    ("split", OF_RUNS, "--split {}: is of a run; of folders of masks all are scored"),
    ("split", ("run", "mean", "runs"), "--split {}: every fold scores what it validates; leave it out"),
    ("data", OF_RUNS, "--data {}: is of a run, whose data set lies elsewhere now"),
    ("weights", OF_RUNS, "--weights {}: is of a run; masks are scored without a model"),
    ("strict", OF_MASKS, "--strict: is of folders; of a run every case is segmented and scored"),
    ("patients", OF_MASKS, "--patients {}: a run knows its patients; leave it out"),
    ("labels", OF_MASKS, "--labels {}: a run scores all that it was trained on; leave it out"),
    ("by", ALONE, "--by {}: two are compared as a whole; evaluate each by itself"),
    ("lesions", ALONE, "--lesions {}: are not compared; evaluate each by itself"),
    ("quality", ("run", "mean"), "--quality: is of one run, or with --mean of several as one"),
)


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
    _require_kind(
        kind,
        oracle_box=oracle_box,
        tta=tta,
        decide=decide,
        postprocess=postprocess,
        split=split,
        data=data,
        weights=weights,
        strict=strict,
        patients=patients,
        labels=labels,
        by=by,
        quality=quality,
        lesions=lesions,
    )
    if postprocess == "choose" and kind != "run":
        usage("--postprocess choose: is of one run; choose for each by itself")
    if quality and oracle_box:
        usage("--quality: is of masks that nobody helped with; leave --oracle-box out")
    if groups is not None and by is None:
        usage(f"--groups {groups}: of which column? Add --by COLUMN")
    _require_scoring(empty, lesions, lesion_overlap)
    _require_folder(out)
    if kind in OF_RUNS and viewer and _classifies(paths[0]):
        usage("--viewer: shows masks, and the run classifies; leave it out")
    with light_imports():
        import scipy.ndimage
        import scipy.spatial  # noqa: F401  # both are used by every score

        import vpt.use.pages.evaluation  # noqa: F401
        from vpt.progress import bar
        from vpt.readers import import_library

        import_library("volumes")
    options: dict[str, Any] = {
        **_tolerances(tolerance),
        "empty": empty,
        "lesions": _names(lesions),
        "lesion_overlap": lesion_overlap,
        "workers": workers,
        **({"by": by, "groups": groups} if by is not None else {}),
    }
    if kind in OF_RUNS:
        options |= {"data": data, "device": device, "weights": weights, "oracle_box": oracle_box, "tta": tta}
        options["decide"] = decision_of(decide)
        if postprocess == "choose":
            _choose_postprocess(paths[0], data, device)
        options["postprocess"] = postprocess == "choose" or is_postprocessed(postprocess)
    else:
        options |= {"labels": _labels(labels), "strict": strict, "patients": patients}
    if kind in ("run", "mean", "runs"):
        options["split"] = split
    if kind in OF_RUNS and kind not in COMPARED:
        options["to_save"] = True
    if quality:
        options["quality"] = True
    with bar("evaluating") as tick:
        report, folder = _evaluated(kind, paths, out, options | {"progress": tick})
    console().print(report.table())
    saved = report.save(folder)
    page = _page(kind, report, folder, paths[0], data, viewer)
    tables = "comparison.csv, comparison.md" if kind in COMPARED else "cases.csv, evaluation.md"
    print(f"written: {saved}, {tables}{', quality.csv' if quality else ''}, {page.name}")


def _require_kind(kind: Kind, **given: Any) -> None:
    """Refuse options that say nothing of what is evaluated."""
    for option, kinds, why in NEEDS:
        usual = "auto" if option in ("decide", "postprocess") else None  # a column may be called so
        if given[option] not in (None, False, usual) and kind not in kinds:
            usage(why.format(given[option]))


def _require_scoring(empty: str, lesions: str | None, overlap: float) -> None:
    if empty not in EMPTY:
        usage(f"--empty {empty}: expected {either(EMPTY)}")
    if not 0 < overlap <= 1:
        usage(f"--lesion-overlap {overlap:g}: expected an IoU above 0 and up to 1")
    if overlap != OVERLAP and lesions is None:
        usage(f"--lesion-overlap {overlap:g}: of which label's lesions? Add --lesions LABEL, or all")


def _require_folder(out: Path | None) -> None:
    if out is None or out.is_dir():
        return
    if out.suffix.lower() in (".json", ".csv", ".md", ".html"):
        usage(
            f"--out {out}: is a folder, in which summary.json, cases.csv, evaluation.md and report.html are put; "
            f"give {out.parent if str(out.parent) != '.' else 'scores'}"
        )
    if out.exists():
        usage(f"--out {out}: is a file, in whose place no folder of scores can be made; give another")


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
    """What kind of evaluation the folders ask for; where they fit none, the command ends with how to ask for one."""
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
    """The report, and the folder to save it in; one that holds other results is refused before anything is scored."""
    from vpt.files import require_writable
    from vpt.report.own_results import COMPARISON, PAGE, PICTURES, QUALITY, RESULTS, require_own

    masks = paths[0] if paths[0].is_dir() else paths[0].parent
    folder = out or masks
    if kind in COMPARED:
        folder = out or paths[0].parent / f"{paths[0].resolve().name}-{paths[1].resolve().name}"
    names = COMPARISON if kind in COMPARED else (*RESULTS, *([QUALITY] if options.get("quality") else []))
    classes = kind in OF_RUNS and kind not in COMPARED and _classifies(paths[0])
    if out or kind not in ("run", "mean", "folds"):  # whose own folders are made before the first mask
        require_own(folder, *names, *(PICTURES if classes else ()), PAGE)
        require_writable(folder, "give another folder for the scores (--out)")
    if out and kind in OF_RUNS and kind not in COMPARED and not classes:
        _require_no_masks(out, paths[0])
    if kind == "folds":
        from vpt.use.cross_validation import evaluate_folds
        from vpt.use.folds import is_of_folds

        return evaluate_folds(paths[0] if len(paths) == 1 and is_of_folds(paths[0]) else paths, out, **options)
    if kind in ("run", "mean"):
        from vpt.use.runs import evaluate_run

        return evaluate_run(paths[0] if kind == "run" else paths, out=out, **options)
    if kind == "masks":
        from vpt.use.evaluation.scoring import evaluate as score

        predictions, references = paths
        return score(predictions, references, **options), out or masks
    from vpt.use.paired import compare_masks, compare_runs

    first, second, *truth = paths
    report = compare_masks(first, second, *truth, **options) if truth else compare_runs(first, second, **options)
    return report, folder


def _require_no_masks(out: Path, run: Path) -> None:
    """Raise VptError where a run's masks would come to lie among others, and on those that are called alike."""
    from vpt.data.cases import kind_of
    from vpt.data.plan import read_plan
    from vpt.errors import VptError
    from vpt.report.own_results import holds_own
    from vpt.use.folds import fold_folder, is_of_folds

    if holds_own(out) or not out.is_dir():
        return
    kind = read_plan((fold_folder(run, 0) if is_of_folds(run) else run) / "plan.json").kind
    if others := sorted(file.name for file in out.iterdir() if kind_of(file) == kind):  # no chart beside volumes
        raise VptError(
            f"{out}: holds {listed(others, 3)}, and no scores of `vpt evaluate`, which would write masks among them; "
            "give another folder (--out), or move them"
        )


def _page(kind: Kind, report: Any, folder: Path, first: Path, data: Path | None, viewer: bool) -> Path:
    from vpt.progress import bar
    from vpt.use.pages.evaluation import write_evaluation_page
    from vpt.use.pages.paired import write_paired_page

    run = first if kind in ("run", "runs") else None
    with bar("drawing the report") as tick:
        if kind in COMPARED:
            return write_paired_page(folder, report, run, data, tick, viewer, sys.argv)
        return write_evaluation_page(folder, run, data, tick, viewer, sys.argv)


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

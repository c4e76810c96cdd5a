"""`vpt predict`"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast, get_args

import typer

from vpt.cli.shared import Device, MirrorImages, RunsOrArtifacts, Weights, usage

if TYPE_CHECKING:
    from vpt.readers import Form
    from vpt.use.archives import Failure
    from vpt.use.classifier import Classifier
    from vpt.use.segmenter import Segmenter


def predict(
    scans: Annotated[
        Path,
        typer.Option(
            "-i", "--input", help="A scan (.nii.gz, .nrrd, .mha; DICOM: folder or .zip), an image, or a folder of them."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A folder, or for one FILE.nii.gz, .nrrd, .mha (image: FILE.png); classes: FILE.csv.",
        ),
    ],
    models: RunsOrArtifacts,
    mean: Annotated[bool, typer.Option("--mean", help="Of several models (-m A -m B): average probabilities.")] = False,
    tta: MirrorImages = False,
    device: Device = "auto",
    weights: Weights = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there already.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Do only the scans without a mask.")] = False,
    precision: Annotated[
        str | None, typer.Option(help="auto, 32-true, bf16-mixed, 16-mixed; default: as the training was told.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Only warn of values that do not look like those of the training.")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile: a minute or more at first, then some percent faster.")
    ] = False,
    series: Annotated[
        str | None, typer.Option(help="Of several DICOM series in a folder: a number, a description, or largest.")
    ] = None,
    as_: Annotated[
        str, typer.Option("--as", help="own (NIfTI, PNG), or of DICOM: dicom-seg, dicom-seg-labelmap.")
    ] = "own",
) -> None:
    """Segment new scans, every mask on its scan's own grid, or classify them into a CSV of probabilities.

    A scan that fails stops no other (exit code 1).
    """
    from vpt.data.cases import unread_scans
    from vpt.machine.precision import Precision
    from vpt.readers import Form
    from vpt.use.classifier import Classifier
    from vpt.use.load import load

    if precision not in (None, *get_args(Precision)):
        usage(f"--precision {precision}: expected {', '.join(get_args(Precision))}")
    if as_ not in get_args(Form):
        usage(f"--as {as_}: expected {', '.join(get_args(Form))}")
    if len(models) > 1 and not mean:
        usage(f"-m {' -m '.join(models)}: several models; add --mean to average their probabilities, or give one")
    loaded = load(models, device, weights, cast("Precision | None", precision), compile_, tta)
    started = time.perf_counter()
    if isinstance(loaded, Classifier):
        if as_ != "own":
            usage(f"--as {as_}: the model classifies, and its answer is a table; leave it out")
        if skip_existing:
            usage("--skip-existing: classes go into one CSV; write another with -o, or replace it with --overwrite")
        done = _classify(loaded, scans, out, overwrite, series, force)
    else:
        done = _segment(loaded, scans, out, overwrite, skip_existing, series, cast("Form", as_), force)
    answered = done.scans - len(done.failures)
    print(f"{answered} of {done.scans} scans {done.verb} in {time.perf_counter() - started:.1f} s: {done.out}")
    for text in done.doubts:
        print(f"warning: {text}", file=sys.stderr)
    for text in unread_scans(scans, len(loaded.plan.channels), done.out):
        print(f"warning: {scans}: {text}", file=sys.stderr)
    for failure in done.failures:
        print(f"failed: {failure.reason}", file=sys.stderr)
    raise typer.Exit(1 if done.failures else 0)


class _Done(NamedTuple):
    """How many scans there were, what became of them and where it lies; what is doubtful, and which failed."""

    verb: str
    scans: int
    out: Path
    doubts: list[str]
    failures: list[Failure]


def _classify(
    classifier: Classifier, scans: Path, out: Path, overwrite: bool, series: str | None, force: bool
) -> _Done:
    from vpt.data.header_doubts import scan_doubts
    from vpt.progress import bar
    from vpt.report.classification import write_probabilities
    from vpt.use.archives import classify_cases, plan_predictions

    cases, table = plan_predictions(scans, out, len(classifier.plan.channels), overwrite, series)
    with bar("classifying") as tick:
        named = [(case.name, case.scan) for case in cases]
        names, probabilities, failures = classify_cases(classifier, named, tick, force)
    if names:  # else the failures say it all
        write_probabilities(table, names, probabilities, classifier.classes, classifier.target)
    return _Done("classified", len(cases), table, scan_doubts(cases, classifier.plan), failures)


def _segment(
    segmenter: Segmenter,
    scans: Path,
    out: Path,
    overwrite: bool,
    skip_existing: bool,
    series: str | None,
    form: Form,
    force: bool,
) -> _Done:
    from vpt.data.header_doubts import scan_doubts
    from vpt.progress import bar
    from vpt.use.archives import plan_outputs, segment_cases

    told: list[tuple[str, str]] = []

    def say(file: str, text: str) -> None:
        told.append((file, text))

    channels = len(segmenter.plan.channels)
    cases, target = plan_outputs(scans, out, channels, overwrite, skip_existing, series, form)
    with bar("segmenting") as tick:
        failures = segment_cases(segmenter, cases, target, tick, form=form, say=say, force=force)
    return _Done("segmented", len(cases), out, scan_doubts(cases, segmenter.plan, told), failures)

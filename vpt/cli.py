"""The command line: thin, no logic. Heavy imports wait until a command runs, so that `vpt --help` answers at once."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vpt.errors import VptError, VptWarning
from vpt.sections import HEADS, PROMPTS, TUNINGS

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="vpt",
    help="Adapt a frozen vision encoder to your scans by training a few prompt tokens and a small head.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunOrArtifact = Annotated[str, typer.Option("-m", "--model", help="A run's folder or an artifact (.safetensors).")]
PatientsPattern = Annotated[
    str | None,
    typer.Option("--patients", help="Whose a case is: what this regular expression (its first group) finds in a name."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Weights = Annotated[Path | None, typer.Option(help="Where the backbone's weights lie, if elsewhere than in training.")]


@app.callback()
def _global(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also after a command).")
    ] = False,
) -> None:
    pass


@app.command()
def check(
    data: Annotated[
        Path, typer.Argument(help="A data set: a folder (MSD, nnU-Net, images/ and masks/, pairs by name), or a list.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Facts and findings as JSON.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write down what was guessed: DATA/dataset.json, new (and split.json).")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="A page with small pictures of the cases, doubtful ones first.")
    ] = None,
    patients: PatientsPattern = None,
) -> None:
    """Say what a data set holds and what is wrong with it, before hours are spent on it."""
    from vpt.data.check import check_dataset
    from vpt.data.layouts import write_description
    from vpt.files import as_json
    from vpt.progress import bar

    with bar("checking") as tick:
        found = check_dataset(data, tick, patients)
    if json:
        print(as_json(found.to_dict()))
    else:
        _console().print(found.table())
    written = write_description(data, write, patients) if write else []
    if html:
        from vpt.use.check_page import write_check_page

        with bar("drawing") as tick:
            write_check_page(data, found, html, tick)
        written.append(html)
    if written:
        print(f"written: {', '.join(map(str, written))}", file=sys.stderr if json else sys.stdout)
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A data set's folder or a YAML config; not needed with --resume.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder, new or empty; default: runs/NAME of the data.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    prompts: Annotated[
        str | None,
        typer.Option(help=f"METHOD or METHOD:COUNT, of {', '.join(PROMPTS.names())}."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="vit_micro, a timm model's name, lite_medsam, sam_vit_b, ..., a folder, or none.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="segmentation or classification, where the data allow both.")] = None,
    shots: Annotated[int | None, typer.Option(help="Learn from so many examples per class (or cases).")] = None,
    head: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(HEADS.names())} (sam_decoder: on a SAM; unet: on none)."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The backbone's weights: a file, or `random` (a control).")
    ] = None,
    tuning: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(TUNINGS.names())}; prompts is no control (--set tuning.rank=4)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.")] = None,
    patients: PatientsPattern = None,
    fold: Annotated[int | None, typer.Option(help="Which fold validates, where no split.json says so.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set optim.lr=1e-3 (repeat).")] = None,
) -> None:
    """Train prompts and a small head; without a config a plan is made from the data."""
    from vpt.config import load_config, parse_override, parse_prompts
    from vpt.engine.fit import Interrupted
    from vpt.engine.run import train as train_run

    named = {
        "prompts": None if prompts is None else parse_prompts(prompts),
        "backbone.name": backbone,
        "task": task,
        "data.shots": shots,
        "head.kind": head,
        "backbone.weights": weights,
        "tuning": tuning,
        "train.epochs": epochs,
        "data.patients": patients,
        "data.fold": fold,
        "seed": seed,
        "device": device,
    }
    overrides: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    overrides |= dict(parse_override(text) for text in set_ or [])
    if config is None and (out is None or not resume):
        _usage("give a data set's folder or a YAML config, or --resume with --out RUN")
    out = out or Path("runs") / Path(config or "run").resolve().stem
    wanted = None if config is None else load_config(config, overrides)
    if config is None and overrides.keys() - {"device"}:
        _usage("--resume takes the run's own settings; leave the others out")
    try:
        run = train_run(wanted, out, resume=resume, overrides=overrides)
    except Interrupted:
        raise typer.Exit(130) from None
    print(f"run: {run}\nbest artifact: {run / 'best.safetensors'}\nprogress: {run / 'progress.png'}")
    previews = run / "validation" / "previews"
    if (run / "validation").is_dir():
        pictures = previews if previews.is_dir() else previews.parent
        print(f"validation: {run / 'validation' / 'summary.json'}, pictures in {pictures}")


@app.command()
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
    model: RunOrArtifact,
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
    from typing import cast, get_args

    from vpt.data.cases import unread_scans
    from vpt.data.header_doubts import scan_doubts
    from vpt.machine.precision import Precision
    from vpt.progress import bar
    from vpt.readers import Form
    from vpt.report.classification import write_probabilities
    from vpt.use.archives import classify_cases, plan_outputs, plan_predictions, segment_cases
    from vpt.use.classifier import Classifier
    from vpt.use.load import load

    if precision not in (None, *get_args(Precision)):
        _usage(f"--precision {precision}: expected {', '.join(get_args(Precision))}")
    if as_ not in get_args(Form):
        _usage(f"--as {as_}: expected {', '.join(get_args(Form))}")
    loaded = load(model, device, weights, cast("Precision | None", precision), compile_)
    channels, started = len(loaded.plan.channels), time.perf_counter()
    if isinstance(loaded, Classifier):
        if as_ != "own":
            _usage(f"--as {as_}: the model classifies, and its answer is a table; leave it out")
        if skip_existing:
            _usage("--skip-existing: classes go into one CSV; write another with -o, or replace it with --overwrite")
        cases, out = plan_predictions(scans, out, channels, overwrite, series)
        with bar("classifying") as tick:
            names, probabilities, failures = classify_cases(
                loaded, [(case.name, case.scan) for case in cases], tick, force
            )
        if names:  # else the failures below say it all
            write_probabilities(out, names, probabilities, loaded.classes, loaded.target)
        verb = "classified"
    else:
        form, said = cast("Form", as_), list[str]()
        cases, target = plan_outputs(scans, out, channels, overwrite, skip_existing, series, form)
        with bar("segmenting") as tick:
            failures = segment_cases(loaded, cases, target, tick, form=form, say=said.append, force=force)
        for text in said:
            print(f"warning: {text}", file=sys.stderr)
        verb = "segmented"
    done = len(cases) - len(failures)
    print(f"{done} of {len(cases)} scans {verb} in {time.perf_counter() - started:.1f} s: {out}")
    for text in scan_doubts(cases, loaded.plan):
        print(f"warning: {text}", file=sys.stderr)
    for text in unread_scans(scans, channels, out):
        print(f"warning: {scans}: {text}", file=sys.stderr)
    for failure in failures:
        print(f"failed: {failure.reason}", file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


@app.command()
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
        _usage("--oracle-box needs a run, not two folders of masks")
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
    _console().print(report.table())
    saved = report.save(folder)
    print(f"written: {saved}, {folder / 'cases.csv'}")


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="A data set with a fixed split, or a YAML config.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder; what is finished in it is kept. Default: runs/compare-NAME."),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Some of them: deep,linear,lora. Default: all (`--methods list` names them).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method with its chosen settings.")] = 3,
    budget: Annotated[str | None, typer.Option(help="Start no further training after this time: 30m, 2h, 90s.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train again what failed before.")] = False,
    task: Annotated[str | None, typer.Option(help="segmentation or classification, where the data allow both.")] = None,
    backbone: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    weights: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every training.")] = None,
    shots: Annotated[int | None, typer.Option(help="Learn from so many examples per class (or cases).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: --set plan.image_size=64 (repeat).")
    ] = None,
) -> None:
    """Which method wins on your data, and at what cost: prompts against everything else that is cheap.

    Each is searched on the validation cases, trained with several seeds and tested once, without augmentation unless
    --set train.augment=light. Start the command again to go on, or in several terminals to share the work.
    """
    from vpt.config import load_config, parse_override
    from vpt.engine.compare import OWN
    from vpt.engine.compare import compare as compare_methods
    from vpt.engine.fit import Interrupted
    from vpt.engine.methods import methods as all_methods

    if methods == "list":
        print("\n".join(f"{name:<13} {method.shown}" for name, method in all_methods().items()))
        return
    named = {
        "task": task,
        "backbone.name": backbone,
        "backbone.weights": weights,
        "train.epochs": epochs,
        "data.shots": shots,
        "device": device,
    }
    overrides: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    overrides |= dict(parse_override(text) for text in set_ or [])
    out = out or Path("runs") / f"compare-{config.resolve().stem}"
    try:
        comparison = compare_methods(
            load_config(config, {**OWN, **overrides}),
            out,
            methods=None if methods is None else [name.strip() for name in methods.split(",")],
            seeds=seeds,
            budget=None if budget is None else _seconds(budget),
            retry_failed=retry_failed,
        )
    except Interrupted:
        print(f"interrupted; the same command goes on where it stopped (--out {out})")
        raise typer.Exit(130) from None
    _console().print(comparison.write())
    print(f"page: {out / 'compare.html'}, picture: {out / 'compare.png'}, table: {out / 'compare.csv'}")


@app.command()
def info(target: Annotated[str, typer.Argument(help="A run, an artifact, or a backbone's name.")]) -> None:
    """What a run or an artifact is made of, or a backbone's size."""
    from vpt.describe import describe

    _console().print(describe(target))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A backbone's name, for example sam_vit_b or a timm model's.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to put it in.")],
) -> None:
    """Download a backbone's weights, to be copied to a machine without a network."""
    from vpt.backbones.families import fetch as fetch_weights
    from vpt.progress import bar

    with bar(f"fetching {name}") as tick:
        path = fetch_weights(name, to, tick)
    chosen = f"--backbone {path}" if path.is_dir() else f"--backbone {name} --weights {path}"
    print(f"{path}\nuse it, here or where you copy it: vpt train DATA {chosen}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; an earlier demo in it is replaced.")] = Path("demo"),
) -> None:
    """The whole way in three minutes, without data or network: make volumes, check, train, segment, evaluate."""
    from vpt.demo import run_demo

    run_demo(out, _console())


@app.command()
def doctor() -> None:
    """Versions, devices, and what is known to go wrong in an installation."""
    from vpt.describe import describe_installation

    table, problems = describe_installation()
    _console().print(table)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    raise typer.Exit(1 if problems else 0)


def main() -> NoReturn:
    """Entry point: a user's mistake is one sentence and exit code 1; `--debug` shows where it arose."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    warnings.showwarning = partial(_warn, warnings.showwarning)
    try:
        app()
    except VptError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        _leave(1)
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(f"error: {str(error) or 'out of memory'}; --debug shows where it arose", file=sys.stderr)
        _leave(1)
    _leave(0)


def _warn(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours as one line, without the place in our code; any other as Python shows it."""
    if issubclass(category, VptWarning):
        print(f"warning: {message}", file=sys.stderr, flush=True)
    else:
        otherwise(message, category, *place)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.exit(code)


def _usage(message: str) -> NoReturn:
    print(f"usage: {message}", file=sys.stderr)
    raise typer.Exit(2)


def _labels(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.strip().isdigit() for part in text.split(",")):
        _usage(f"--labels {text}: expected whole numbers, for example 1,2")
    return [int(part) for part in text.split(",")]


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in ("s", "m", "h") or not number.replace(".", "", 1).isdecimal():
        _usage(f"--budget {text}: expected a number and s, m or h, for example 30m")
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "110"))
    return Console(width=width)

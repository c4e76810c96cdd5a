"""`vpt train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vpt.cli.shared import ChosenDevice, PatientsPattern, Settings, Shots, Task, Viewer, overrides_of, usage
from vpt.sections import HEADS, PROMPTS, TUNINGS


def train(
    config: Annotated[
        Path | None, typer.Argument(help="A data set's folder or a YAML config; not needed with --resume.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The run's folder, new, empty or interrupted; default: runs/NAME of the data."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, or start it there.")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Go on from a run or an artifact: its prompts, head, encoder and plan, on DATA."),
    ] = None,
    continue_: Annotated[
        Path | None,
        typer.Option("--continue", help="Add DATA as a further task to a run: its classes, labels and answers stay."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help=f"METHOD or METHOD:COUNT, of {', '.join(PROMPTS.names())}."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="vit_micro, a timm model's name, lite_medsam, sam_vit_b, ..., a folder, or none.")
    ] = None,
    task: Task = None,
    shots: Shots = None,
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
    fold: Annotated[
        int | None, typer.Option(help="Which fold validates (over train and val, where split.json fixes the sides).")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(help="Train so many folds (or `all` there are) into --out; again to go on, or to share the work."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    device: ChosenDevice = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Train in so many processes on this machine, one GPU each.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="On so many machines (docs/scale.md).")] = None,
    viewer: Viewer = False,
    set_: Settings = None,
) -> None:
    """Train prompts and a small head; without a config a plan is made from the data."""
    from vpt.config import parse_prompts
    from vpt.engine.processes import is_first
    from vpt.engine.run import train as train_run
    from vpt.engine.setup import FREE
    from vpt.engine.signals import Interrupted

    if start is not None and continue_ is not None:
        usage("--from and --continue: give one of the two")
    begin = start or continue_
    named = {
        "prompts": None if prompts is None else parse_prompts(prompts),
        "backbone.name": backbone,
        "task": task,
        "start.path": None if begin is None else str(begin.resolve()),
        "start.adds": True if continue_ else None,
        "data.shots": shots,
        "head.kind": head,
        "backbone.weights": weights,
        "tuning": tuning,
        "train.epochs": epochs,
        "data.patients": patients,
        "data.fold": fold,
        "seed": seed,
        "device": device,
        "train.viewer": True if viewer else None,
    }
    overrides = overrides_of(named, set_)
    if folds is not None:
        if devices or nodes:
            usage("--folds with --devices or --nodes: start the command several times, they share the folds")
        _train_folds(config, out, folds, overrides, fold)
        return
    if config is None and (out is None or not resume):
        usage("give a data set's folder or a YAML config, or --resume with --out RUN")
    out = out or Path("runs") / Path(config or "run").resolve().stem
    if config is None and overrides.keys() - {"train.epochs", *FREE}:
        usage("--resume takes the run's own settings; leave the others out")
    try:
        run = train_run(config, out, resume=resume, overrides=overrides, devices=devices, nodes=nodes)
    except Interrupted as stop:
        raise typer.Exit(stop.code) from None
    if is_first():
        _tell(run)


def _tell(run: Path) -> None:
    print(f"run: {run}\nbest artifact: {run / 'best.safetensors'}\nprogress: {run / 'progress.png'}")
    if (run / "report.html").is_file():
        print(f"report: {run / 'report.html'}")
    previews = run / "validation" / "previews"
    if (run / "validation").is_dir():
        pictures = previews if previews.is_dir() else previews.parent
        print(f"validation: {run / 'validation' / 'summary.json'}, pictures in {pictures}")


def _train_folds(
    config: Path | None, out: Path | None, folds: str, overrides: dict[str, Any], fold: int | None
) -> None:
    from vpt.config import load_config
    from vpt.engine.folds import train_folds
    from vpt.engine.signals import Interrupted

    if folds != "all" and not (folds.isdigit() and int(folds) > 1):
        usage(f"--folds {folds}: expected all, or a number of 2 and more")
    if config is None:
        usage("--folds needs a data set's folder or a YAML config; the same command goes on where it stopped")
    if fold is not None:
        usage(f"--fold {fold}: --folds trains them all; give one of the two")
    number = {} if folds == "all" else {"data.folds": int(folds)}
    out = out or Path("runs") / f"folds-{config.resolve().stem}"
    try:
        train_folds(load_config(config, overrides | number), out)
    except Interrupted as stop:
        print(f"interrupted; the same command goes on where it stopped (--out {out})")
        raise typer.Exit(stop.code) from None
    print(
        f"folds: {out}\nscores over all cases: vpt evaluate {out}\nall folds as one: vpt predict -m {out} -i ... -o ..."
    )

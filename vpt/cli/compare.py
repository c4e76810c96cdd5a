"""`vpt compare`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.shared import ChosenDevice, Settings, Shots, Task, console, list_methods, overrides_of, usage


def compare(
    config: Annotated[Path | None, typer.Argument(help="A data set with a fixed split, or a YAML config.")] = None,
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
    task: Task = None,
    backbone: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    weights: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every training.")] = None,
    shots: Shots = None,
    device: ChosenDevice = None,
    set_: Settings = None,
) -> None:
    """Which method wins on your data, and at what cost: prompts against everything else that is cheap.

    Each is searched on the validation cases, trained with several seeds and tested once, without augmentation unless
    --set train.augment=light. Start the command again to go on, or in several terminals to share the work.
    """
    from vpt.engine.compare import compare as compare_methods
    from vpt.engine.methods import methods as all_methods
    from vpt.engine.signals import Interrupted

    if methods == "list":
        list_methods({name: method.shown for name, method in all_methods().items()})
        return
    if config is None:
        usage("give a data set's folder or a YAML config, or --methods list alone")
    named = {
        "task": task,
        "backbone.name": backbone,
        "backbone.weights": weights,
        "train.epochs": epochs,
        "data.shots": shots,
        "device": device,
    }
    overrides = overrides_of(named, set_)
    out = out or Path("runs") / f"compare-{config.resolve().stem}"
    try:
        comparison = compare_methods(
            config,
            out,
            methods=None if methods is None else [name.strip() for name in methods.split(",")],
            seeds=seeds,
            budget=None if budget is None else _seconds(budget),
            retry_failed=retry_failed,
            overrides=overrides,
        )
    except Interrupted as stop:
        print(f"interrupted; the same command goes on where it stopped (--out {out})")
        raise typer.Exit(stop.code) from None
    console().print(comparison.write(sys.argv))
    print(f"page: {out / 'compare.html'}, picture: {out / 'compare.png'}, table: {out / 'compare.csv'}")
    if comparison.pending():
        done, total = comparison.progress()
        print(f"the budget is over: {done} of {total} trainings are done; the same command goes on (--out {out})")
    if len(comparison.without_result) == len(comparison.methods):
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in ("s", "m", "h") or not number.replace(".", "", 1).isdecimal():
        usage(f"--budget {text}: expected a number and s, m or h, for example 30m")
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]

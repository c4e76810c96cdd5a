"""`vpt continual`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vpt.cli.shared import ChosenDevice, Settings, console, list_methods, overrides_of, usage


def continual(
    data: Annotated[
        list[Path] | None,
        typer.Argument(help="A data set whose classes are split, several (masks too) in turn, or a protocol."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder; what is finished in it is kept. Default: runs/continual-NAME."),
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Tasks that the classes are split into; default 5.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Some of them: ncm,ranpac,coda. Default: all (`--methods list` names them).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Orders of the tasks.")] = None,
    backbone: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    weights: Annotated[str | None, typer.Option(help="As of `vpt train`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every task.")] = None,
    device: ChosenDevice = None,
    set_: Settings = None,
) -> None:
    """Learn classes or organs one task after another, with prompts and with controls, and see what stays.

    Start the command again to go on.
    """
    from vpt.continual.protocol import SHOWN, load_protocol
    from vpt.continual.running import run_protocol
    from vpt.engine.signals import Interrupted, heed_signals
    from vpt.errors import VptError

    if methods == "list":
        list_methods(SHOWN)
        return
    if not data:
        usage("give a data set whose classes are split, several data sets, or a protocol, or --methods list alone")
    named = {"backbone.name": backbone, "backbone.weights": weights, "train.epochs": epochs, "device": device}
    own: dict[str, Any] = {
        "tasks": tasks,
        "methods": None if methods is None else [name.strip() for name in methods.split(",")],
        "seeds": None if seeds is None else list(range(seeds)),
        "settings": overrides_of(named, set_),
    }
    protocol = load_protocol(data, {key: value for key, value in own.items() if value is not None})
    out = out or Path("runs") / f"continual-{data[0].resolve().stem}"
    failed: dict[str, VptError] = {}
    try:
        with heed_signals() as signals, signals.at_once():  # what no training saves is done again
            found = run_protocol(protocol, out, sys.argv, failed.__setitem__)
    except Interrupted as stop:
        print(f"interrupted; the same command goes on where it stopped (--out {out})")
        raise typer.Exit(stop.code) from None
    if found:
        console().print(table_of(found))
        print(f"page: {out / 'continual.html'}, scores: {out / 'continual.json'}")
    if failed:
        raise VptError("; ".join(f"{method}: {error}" for method, error in failed.items()))


def table_of(found: Any) -> Any:
    """For the terminal."""
    from rich.table import Table

    from vpt.continual.protocol import SHOWN

    of_masks = any(each.chosen is not None for each in found)
    chosen = ["task chosen"] if of_masks else []
    table = Table("method", "final", "95 % interval", "incremental", "forgetting", "told the task", *chosen, "seconds")
    for each in found:
        row = each.to_dict()
        low, high = row["final_interval"]
        ends = f"{low:.3f} to {high:.3f}"
        table.add_row(
            SHOWN[each.method],
            f"{row['final']:.3f}",
            ends,
            _or_dash(row["average_incremental"]),
            _or_dash(row["forgetting"]),
            f"{row['final_told']:.3f}",
            *([_or_dash(row["chosen_rightly"])] if of_masks else []),
            f"{row['seconds']:.0f}",
        )
    return table


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

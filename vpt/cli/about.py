"""`vpt info`, `vpt fetch`, `vpt demo`, `vpt doctor`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.shared import console


def info(target: Annotated[str, typer.Argument(help="A run, an artifact, or a backbone's name.")]) -> None:
    """What a run or an artifact is made of, or a backbone's size."""
    from vpt.describe import describe

    console().print(describe(target))


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


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; an earlier demo in it is replaced.")] = Path("demo"),
) -> None:
    """The whole way in three minutes, without data or network: make volumes, check, train, segment, evaluate."""
    from vpt.demo import run_demo

    run_demo(out, console())


def doctor() -> None:
    """Versions, devices, and what is known to go wrong in an installation."""
    from vpt.describe import describe_installation

    table, problems = describe_installation()
    console().print(table)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    raise typer.Exit(1 if problems else 0)

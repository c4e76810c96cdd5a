"""`vpt info`, `vpt fetch`, `vpt demo`, `vpt doctor`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.shared import console

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def info(
    target: Annotated[str, typer.Argument(help="A run, an artifact, or a backbone's name.")], as_json: Json = False
) -> None:
    """What a run or an artifact is made of, or a backbone's size."""
    from vpt.describe import describe

    _print(target, describe(target), as_json)


def fetch(
    name: Annotated[str, typer.Argument(help="A backbone's name, for example sam_vit_b or a timm model's.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to put it in.")],
) -> None:
    """Download a backbone's weights, to be copied to a machine without a network."""
    from vpt.backbones.families import family_of, published
    from vpt.backbones.families import fetch as fetch_weights
    from vpt.progress import bar

    if family_of(name).fetch is not None:
        print(f"weights of {published(name)}", file=sys.stderr)
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


def doctor(as_json: Json = False) -> None:
    """Versions, devices, and what is known to go wrong in an installation."""
    from vpt.describe import describe_installation

    facts, problems = describe_installation()
    _print("installation", facts, as_json, problems=problems)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    raise typer.Exit(1 if problems else 0)


def _print(title: str, facts: list[tuple[str, str]], as_json: bool, **more: list[str]) -> None:
    from vpt.describe import two_columns

    if as_json:
        print(json.dumps({name.strip(): value for name, value in facts} | more, indent=2, ensure_ascii=False))
    else:
        console().print(two_columns(title, facts))

"""`vpt explain`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.shared import Device, Weights


def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder or an artifact (.safetensors).")],
    scan: Annotated[Path, typer.Argument(help="An image or a scan that it answers for.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of explain.html, explain.json, attention.npz.")
    ] = Path("explain"),
    slice: Annotated[int | None, typer.Option(help="Of a volume; else the one in which most is found.")] = None,
    maps_only: Annotated[bool, typer.Option("--maps-only", help="Do not answer without each prompt in turn.")] = False,
    weights: Weights = None,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option(help="Only warn of values that do not look like those of the training.")
    ] = False,
) -> None:
    """What each prompt does on a scan: who attends to it, what changes without it, which are alike."""
    from vpt.progress import bar
    from vpt.use.explain import explain as explained

    with bar("leaving prompts out") as tick:
        found = explained(
            run, scan, slice=slice, weights=weights, device=device, leave_out=not maps_only, force=force, progress=tick
        )
    where = "" if found.slice is None else f", slice {found.slice}"
    print(f"{found.case}{where}: {found.watched} {found.score:.3f}; written: {', '.join(map(str, found.save(out)))}")

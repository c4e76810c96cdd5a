"""`vpt explain`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vpt.cli.shared import Device, Weights
from vpt.words import counted

USED = ("vpt", "torch", "timm", "numpy")


def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder or an artifact (.safetensors).")],
    scan: Annotated[Path, typer.Argument(help="An image or a scan that it answers for.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of explain.html, explain.json, attention.npz.")
    ] = Path("explain"),
    slice: Annotated[int | None, typer.Option(help="Of a volume; else the one in which most is found.")] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=0, help="Training images that are searched for patches near to each prompt; 32 where they are there."
        ),
    ] = None,
    volume: Annotated[
        bool, typer.Option("--volume/--no-volume", help="Of a volume: attention/, a NIfTI file for each prompt.")
    ] = True,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a model that learned to segment several tasks: the scan's; else it is chosen.", metavar="NAME"
        ),
    ] = None,
    maps_only: Annotated[bool, typer.Option("--maps-only", help="Do not answer without each prompt in turn.")] = False,
    weights: Weights = None,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option(help="Only warn of values that do not look like those of the training.")
    ] = False,
) -> None:
    """What each prompt does on a scan: who attends to it, what changes without it, which are alike, and which patches
    of the training images are near to it.
    """
    from vpt.artifact import find_artifact
    from vpt.progress import bar
    from vpt.report.own_results import require_own_page
    from vpt.use.explain import explain as explained
    from vpt.use.models import models_in
    from vpt.use.pages.making import making_of

    require_own_page(out / "explain.html")
    with bar("explaining") as tick:
        found = explained(
            run,
            scan,
            slice=slice,
            weights=weights,
            device=device,
            leave_out=not maps_only,
            images=images,
            volumes=out / "attention" if volume else None,
            force=force,
            task=task,
            progress=tick,
        )
    where = "" if found.slice is None else f", slice {found.slice}"
    repeat = making_of("To repeat it", sys.argv, artifacts=[find_artifact(models_in(run)[0])], packages=USED)
    written = [*map(str, found.save(out, [repeat])), *told_of_volumes(found)]
    print(f"{found.case}{where}: {found.watched} {found.score:.3f}; written: {', '.join(written)}")
    if images is None and isinstance(near := getattr(found, "near", None), str):
        print(f"warning: no training patches: {near}", file=sys.stderr)


def told_of_volumes(found: Any) -> list[str]:
    files = getattr(found, "volumes", ())
    return [f"{files[0].parent} ({counted(len(files), 'map')} of the whole scan)"] if files else []

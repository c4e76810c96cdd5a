"""`vpt fetch-data`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch_data(
    name: Annotated[str, typer.Argument(help="hippocampus, or another task of the Decathlon: heart, spleen, ...")],
    to: Annotated[Path, typer.Option("--to", help="The folder to make.")],
    source: Annotated[
        Path | None, typer.Option(help="The set on disk, a folder or an archive, instead of fetching it.")
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Where the archive is kept; default: downloads/ beside the new folder.")
    ] = None,
) -> None:
    """A published data set, ready to train on: fetched, verified by its hash, with fixed sides."""
    from vpt.published.msd import fetch_task, origin_called

    print(origin_called(name).terms, flush=True)
    print(fetch_task(name, to, source, downloads))

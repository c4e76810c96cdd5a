"""`vpt check`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.shared import PatientsPattern, Task, console, usage


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
    labels: Annotated[
        str | None,
        typer.Option(
            help="What values of the masks are called, as data.labels: '{liver: [1, 2], background: others}'."
        ),
    ] = None,
    task: Task = None,
) -> None:
    """Say what a data set holds and what is wrong with it, before hours are spent on it."""
    from vpt.config import parse_labels
    from vpt.data.check import check_dataset
    from vpt.data.findings import unusable
    from vpt.data.layouts import write_description
    from vpt.errors import VptError
    from vpt.files import as_json
    from vpt.progress import bar
    from vpt.report.own_results import require_own_page
    from vpt.vocabulary import TASKS
    from vpt.words import either

    asked = next((each for each in TASKS if each == task), None)
    if task is not None and asked is None:
        usage(f"--task {task}: expected {either(TASKS)}")
    if html and html.suffix.lower() not in (".html", ".htm"):
        usage(f"--html {html}: is the name of the page, and what is there would be replaced; give NAME.html")
    if html:
        require_own_page(html)
    with bar("checking") as tick:
        try:
            found = check_dataset(data, tick, patients, parse_labels(labels) if labels else None, asked)
        except VptError as error:
            if json:
                print(as_json(unusable(error, data)))
            raise
    if json:
        print(as_json(found.to_dict()))
    else:
        console().print(found.table())
    written = write_description(found.dataset, write) if write else []
    if html:
        from vpt.use.check_page import write_check_page

        with bar("drawing") as tick:
            write_check_page(found, html, tick, sys.argv)
        written.append(html)
    if written:
        print(f"written: {', '.join(map(str, written))}", file=sys.stderr if json else sys.stdout)
    raise typer.Exit(0 if found.ok else 1)

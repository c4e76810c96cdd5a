"""`vpt view`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    scan: Annotated[Path, typer.Argument(help="A scan (NIfTI, DICOM folder, PNG, ...), or a folder of scans.")],
    masks: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MASK", help="Masks on it (of a folder: folders of masks); of two, the truth first."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A run or artifact whose labels name those of the masks.")
    ] = None,
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Show scans and masks in a browser, from a server on this machine alone; Ctrl-C ends it."""
    import webbrowser

    from vpt.view.scenes import find_cases
    from vpt.view.server import Server, Viewer

    cases = find_cases(scan, masks or [])
    names = _labels_of(model) if model else None
    viewer = Viewer(cases, names)
    if len(cases) == 1:
        viewer.scene(0)  # what is wrong with it is said here, not in the browser
    with Server(viewer, port) as server:
        print(f"{len(cases)} scan{'s' if len(cases) > 1 else ''}: {server.address}\nCtrl-C ends it", flush=True)
        if not no_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")


def _labels_of(model: Path) -> dict[int, str]:
    from vpt.artifact import read_artifact
    from vpt.artifact_tasks import labels_of

    return labels_of(read_artifact(model))

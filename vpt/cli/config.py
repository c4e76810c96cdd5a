"""`vpt config`"""

from __future__ import annotations

from typing import Annotated

import typer

from vpt.cli.shared import console


def config(
    key: Annotated[
        str | None, typer.Option("--explain", metavar="KEY", help="Only this setting, or section: optim.lr, train.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The page docs/settings.md, made from the settings' own types.")
    ] = False,
) -> None:
    """Every setting of a config: its values, default and meaning."""
    from vpt.use.settings import explain, settings, settings_page

    if markdown:
        print(settings_page(), end="")
        return
    for setting in explain(key) if key else settings():
        of = f" (of {setting.of})" if setting.of else ""
        console().print(f"[bold]{setting.key}[/bold]{of}: {setting.values}; default {setting.default}", soft_wrap=True)
        console().print(f"    {setting.meaning}", markup=False)

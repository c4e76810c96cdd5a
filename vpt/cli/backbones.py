"""`vpt backbones`"""

from __future__ import annotations

from typing import Annotated

import typer

from vpt.cli.shared import console


def backbones(
    pattern: Annotated[str, typer.Argument(help="Some of them: '*dinov3*', 'sam_*'.")] = "*",
    refused: Annotated[bool, typer.Option("--refused", help="Those that do not load, and why.")] = False,
    json: Annotated[bool, typer.Option("--json", help="All that is known of them as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/backbones.md.")] = False,
) -> None:
    """Every encoder that can be named, by its kind, without its weights in memory."""
    from vpt.backbones.catalogue import catalogue
    from vpt.files import as_json
    from vpt.progress import bar
    from vpt.use.encoders import encoders_page, facts_of, row_of

    with bar("looking") as tick:
        found = catalogue(pattern, tick)
    if markdown:
        print(encoders_page(found), end="")
    elif json:
        print(as_json([facts_of(each) for each in found if bool(each.refused) is refused]))
    elif refused:
        for each in (each for each in found if each.refused):
            console().print(f"[bold]{each.name}[/bold] ({each.kind}): {each.refused}", soft_wrap=True)
    else:
        for row in (row_of(each) for each in found if not each.refused):
            licence = f"; licence: {row.licence}" if row.licence else ""
            facts = f"{row.kind}, {row.image} px, patch {row.patch}, blocks {row.blocks}{licence}"
            console().print(f"[bold]{row.name}[/bold]: {facts}", soft_wrap=True, highlight=False)
        if count := sum(bool(each.refused) for each in found):
            print(f"{count}{' more' if count < len(found) else ''} do not load; --refused says why")

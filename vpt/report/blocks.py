"""Tables with a title above and sentences below: for a terminal, as plain text, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """A table and what is said of it; `head` and every row have one cell per column, and the first names the row.

    last: how many rows at the end are sums or means of those above.
    """

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    last: int = 0

    def table(self) -> Any:
        """For a terminal: a rich renderable."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for index, name in enumerate(self.head):
            whole = "interval" in name
            table.add_column(name, justify="right" if index else "left", no_wrap=whole, overflow="fold")
        for index, row in enumerate(self.rows):
            table.add_row(*map(Text, row), end_section=index == len(self.rows) - 1 - self.last and self.last > 0)
        title = [Text(self.title, style="table.title")] if self.title else []  # as wide as the terminal, not the table
        said = [Text(note) for note in self.notes]
        return Group(*title, *([table] if self.head else []), *([Text(), *said] if said else []))

    def text(self) -> str:
        """The table as plain text, for logs and files."""
        table = [self.head, *self.rows] if self.head else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table]
        return "\n".join([*([self.title] if self.title else []), *lines, *self.notes])

    def markdown(self, level: int) -> str:
        """The table as Markdown, under a heading of this level."""
        ruled = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows] if self.head else []
        table = "\n".join("| " + " | ".join(map(_escaped, row)) + " |" for row in ruled)
        notes = "\n".join(f"* {_escaped(line)}" for note in self.notes for line in note.splitlines())
        title = _escaped(", ".join(self.title.splitlines()))
        return "\n\n".join(filter(None, [f"{'#' * level} {title}" if title else "", table, notes]))


def _escaped(cell: str) -> str:
    """Text in which stars and bars stay what they are."""
    return re.sub(r"([\\|*])", r"\\\1", cell).replace("<", "&lt;")

"""The report of masks, for people: a table for a terminal, the same as plain text, and a folder of JSON and CSV."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vpt.files import make_folder, write_json, write_text
from vpt.scores.bootstrap import LEVEL
from vpt.scores.segmentation import SegmentationScores
from vpt.versions import version_of
from vpt.words import listed

EMPTY_WORDS = {"nan": "left out of means", "one": "scored 1", "zero": "scored 0"}


class Report(SegmentationScores):
    """Scores of some cases on some labels (`labels`: id -> name). In every method `label=None` is the foreground.

    missing: the references that had no prediction and so are in no score; groups: names each case's patient.

    Raises:
        VptError: another number of groups than of cases.
    """

    def save(self, folder: str | Path) -> Path:
        """Write `summary.json` and `cases.csv` into the folder, made if missing -> the path of `summary.json`.

        Raises VptError when the folder cannot be made or written.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        write_text(folder / "cases.csv", self.to_csv())
        write_json(folder / "summary.json", self.summary())
        return folder / "summary.json"

    def table(self) -> Any:
        """For a terminal: a rich renderable, one row per label, the foreground last, the counts below."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head, *rows = self._rows()
        title = Text(self.settings.title)
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 2, overflow="fold")
        for index, row in enumerate(rows):
            table.add_row(*map(Text, row), end_section=index == len(rows) - 2)
        return Group(
            table, Text("\n" + self._footer()), *([Text(self._gap(), style="bold yellow")] if self.missing else [])
        )

    def text(self) -> str:
        """The same as plain text, for logs and files."""
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        return "\n".join([self.settings.title, *aligned, self._footer(), *([self._gap()] if self.missing else [])])

    def _rows(self) -> list[list[str]]:
        named: list[tuple[str, int | None]] = [(name, label) for label, name in self.labels.items()]
        unit = self.settings.unit
        size = "volume error ml" if unit == "mm" else "area error px"
        head = ["label", "Dice", f"{LEVEL:.0%} interval", "IoU", f"HD95 {unit}", "NSD", size]
        return [head, *([name, *self._cells(label)] for name, label in [*named, ("foreground", None)])]

    def _cells(self, label: int | None) -> list[str]:
        low, high = self.interval("Dice", label)
        return [
            _cell(self.mean("Dice", label), ".3f"),
            f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "-",
            _cell(self.mean("IoU", label), ".3f"),
            _cell(self.mean("HD95", label), ".2f"),
            _cell(self.mean("NSD", label), ".3f"),
            self._size_error(label),
        ]

    def _size_error(self, label: int | None) -> str:
        """Predicted minus reference: ml of scans, pixels of images."""
        if self.settings.unit == "mm":
            return _cell(self.mean("volume_pred_ml", label) - self.mean("volume_ref_ml", label), "+z.3f")
        return _cell(self.mean("n_pred", label) - self.mean("n_ref", label), "+z.1f")

    def _footer(self) -> str:
        """How many scores the means are of and what happened to the others; how distances were computed."""
        counts, settings = self.counts(), self.settings
        happened = [
            f"{counts[key]} {words}"
            for key, words in {
                "both_empty": f"empty in both ({EMPTY_WORDS[settings.empty]})",
                "missed": "missed",
                "false_positives": "predicted on an empty reference",
                "hd95_undefined": "without HD95",
            }.items()
            if counts[key]
        ]
        cases = _number(len(self.cases), "case")
        if self._units is not None:
            cases += f" of {_number(len(set(self._units)), 'patient')}"
        scored = f"{cases} x {_number(len(self.labels), 'label')}"
        surfaces = (
            f"HD95 and NSD (at {settings.tolerance:g} {settings.unit}) by MONAI {version_of('monai') or 'unknown'}"
        )
        return (
            f"{scored}: {', '.join(happened) or 'each present in prediction and reference'}\n"
            f"{surfaces if settings.distances else 'HD95 and NSD not computed'}; "
            f"{'volume' if settings.unit == 'mm' else 'area'} error: predicted - reference"
            + (f"\nencoder: {self.weights}" if self.weights else "")
        )

    def _gap(self) -> str:
        """What a reader must not overlook: the scores are of a part of the references."""
        return (
            f"{len(self.missing)} of {len(self.cases) + len(self.missing)} references have no prediction and are not "
            f"scored: {listed(self.missing, 3)} (--strict makes this an error)"
        )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"

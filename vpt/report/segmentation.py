"""The report of masks, for people: tables for a terminal, the same as plain text, and a folder of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpt.files import make_folder, write_json, write_text
from vpt.report.blocks import Block
from vpt.report.group_blocks import group_blocks, range_of, shown
from vpt.report.lesion_blocks import lesion_blocks
from vpt.report.own_results import PICTURES, QUALITY, RESULTS, saving
from vpt.report.parts import EMPTY_WORDS
from vpt.report.trust_blocks import trust_blocks
from vpt.scores.bootstrap import LEVEL
from vpt.scores.means import mean_defined
from vpt.scores.segmentation import SegmentationScores
from vpt.words import agreeing, counted, listed

WHY = {
    "both_empty": "empty in both",
    "missed": "missed",
    "false_positives": "predicted on an empty reference",
    "hd95_undefined": "without HD95",
}
MOST_WORST = 10  # cases in Markdown


class Report(SegmentationScores):
    """Scores of some cases on some labels (`labels`: id -> name). In every method `label=None` is the foreground.

    missing: the references that had no prediction and so are in no score; groups: names each case's patient.

    Raises:
        VptError: another number of groups than of cases.
    """

    def save(self, folder: str | Path) -> Path:
        """Write `summary.json` (last), `cases.csv`, `evaluation.md`, and `quality.csv` if asked for, into the folder,
        made if missing, in place of an earlier evaluation's -> the path of `summary.json`.

        Raises VptError when the folder cannot be made or written, or holds such files that are not of an evaluation.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        names = RESULTS if self.qualities is None else (*RESULTS, QUALITY)
        with saving(folder, *names, without=PICTURES):
            write_text(folder / "cases.csv", self.to_csv())
            write_text(folder / "evaluation.md", self.markdown())
            if self.qualities is not None:
                write_text(folder / "quality.csv", self.quality_csv())
            write_json(folder / "summary.json", self.summary())
        return folder / "summary.json"

    def table(self) -> Any:
        """For a terminal: a rich renderable, a row per label, the foreground last, the counts below."""
        from rich.console import Group
        from rich.text import Text

        first, *others = (block.table() for block in self.blocks())
        parts = [first, *(part for block in others for part in (Text(), block))]
        warned = [Text(line, style="bold yellow") for line in self._warnings()]
        return Group(*parts, Text("\n" + self._footer()), *warned)

    def text(self) -> str:
        """The report as plain text, for logs and files."""
        blocks = [block.text() for block in self.blocks()]
        return "\n".join([*blocks, self._footer(), *self._warnings()])

    def markdown(self) -> str:
        """The report as a page in Markdown, with the worst cases and what is left out of means."""
        first, *others = self.blocks()
        said = Block("How", notes=[*self._footer().splitlines(), *self._warnings()])
        blocks = [*others, self._worst(), *([self._left_out()] if self.left_out() else []), said]
        return "\n\n".join([first.markdown(1), *(block.markdown(2) for block in blocks)]) + "\n"

    def blocks(self) -> list[Block]:
        """Tables: overlaps, surfaces and sizes, then of lesions and groups where they were asked for."""
        overlaps = ["label", "Dice", f"{LEVEL:.0%} interval", "IoU", "precision", "recall"]
        rows = [[name, *self._overlaps(label)] for name, label in self._named()]
        blocks = [Block(self.settings.title, overlaps, rows, last=1), self._surfaces()]
        groups = [block for found in self.by_group for block in group_blocks(found, "Dice")]
        return [*blocks, *lesion_blocks(self), *groups, *trust_blocks(self.trust)]

    def _named(self) -> list[tuple[str, int | None]]:
        return [*((name, label) for label, name in self.labels.items()), ("foreground", None)]

    def _overlaps(self, label: int | None) -> list[str]:
        interval = range_of(self.interval("Dice", label))
        dice, *others = (shown(self.mean(score, label)) for score in ("Dice", "IoU", "precision", "recall"))
        return [dice, interval, *others]

    def _surfaces(self) -> Block:
        unit = self.settings.unit
        sizes = ["volume ml", "error ml"] if unit == "mm" else ["area px", "error px"]
        rows = [[name, *self._distances(label), *self._sizes(label)] for name, label in self._named()]
        heads = ["label", "NSD", *([f"within {unit}"] if self.settings.tolerances else [])]
        return Block("", [*heads, f"HD95 {unit}", f"ASSD {unit}", *sizes, "|error|"], rows, last=1)

    def _distances(self, label: int | None) -> list[str]:
        within = "" if label is None else f"{self.settings.tolerance_of(label):g}"
        hd95, assd = (shown(self.mean(score, label), ".2f") for score in ("HD95", "ASSD"))
        return [shown(self.mean("NSD", label)), *([within] if self.settings.tolerances else []), hd95, assd]

    def _sizes(self, label: int | None) -> list[str]:
        """The reference's, predicted minus reference, and the mean size of this: ml of scans, pixels of images."""
        flat = self.settings.unit == "px"
        own, true = ("n_pred", "n_ref") if flat else ("volume_pred_ml", "volume_ref_ml")
        errors = self.values(own, label) - self.values(true, label)
        digits = 1 if flat else 3
        return [
            shown(self.mean(true, label), f".{digits}f"),
            shown(float(mean_defined(errors.ravel(), 0)), f"+z.{digits}f"),
            shown(float(mean_defined(abs(errors).ravel(), 0)), f".{digits}f"),
        ]

    def _footer(self) -> str:
        """How many scores the means are of and what happened to the others; how distances were computed."""
        counts, settings = self.counts(), self.settings
        words = WHY | {"both_empty": f"empty in both ({EMPTY_WORDS[settings.empty]})"}
        happened = [f"{counts[key]} {words[key]}" for key in WHY if counts[key]]
        cases = counted(len(self.cases), "case")
        if self._units is not None:
            cases += f" of {counted(len(set(self._units)), 'patient')}"
        scored = f"{cases} x {counted(len(self.labels), 'label')}"
        within = "" if settings.tolerances else f" within {settings.tolerance:g} {settings.unit}"
        surfaces = f"NSD{within}, HD95 and ASSD by surface voxels"
        lines = [
            f"{scored}: {', '.join(happened) or 'each present in prediction and reference'}",
            f"{surfaces if settings.distances else 'NSD, HD95 and ASSD not computed'}; error: predicted - reference",
            *self.remarks(),
            *self.notes,
            *([f"encoder: {self.weights}"] if self.weights else []),
        ]
        return "\n".join(lines)

    def _worst(self) -> Block:
        cases = self.worst_first()[:MOST_WORST]
        rows = [[case.name, *(shown(case.scores[label].dice) for label in self.labels)] for case in cases]
        title = "The worst cases" if len(self.cases) > MOST_WORST else "Cases, the worst first"
        return Block(f"{title} (Dice)", ["case", *self.labels.values()], rows)

    def _left_out(self) -> Block:
        rows = [[each["case"], each["label"], WHY[each["why"]]] for each in self.left_out()]
        return Block("Absent in the prediction, the reference or both", ["case", "label", "what"], rows)

    def _warnings(self) -> list[str]:
        """What a reader must not overlook: doubtful masks, scores of a part of the references."""
        return [*(f"warning: {doubt}" for doubt in self.doubts), *([self._gap()] if self.missing else [])]

    def _gap(self) -> str:
        return (
            f"{len(self.missing)} of {len(self.cases) + len(self.missing)} references "
            f"{agreeing(len(self.missing), 'have')} no prediction and {agreeing(len(self.missing), 'are')} not "
            f"scored: {listed(self.missing, 3)} (--strict makes this an error)"
        )

"""What a page shows of an evaluation of masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.palette import colours_of
from vpt.report.mask_charts import confusion_rows, dice_chart, trust_chart, volume_charts
from vpt.report.mask_summary import SHOWN, MaskCase, MaskSummary
from vpt.report.overlays import Panel
from vpt.report.parts import (
    BEST,
    EMPTY_WORDS,
    MOST_CONFUSED,
    MOST_ROWS,
    WORST,
    Tile,
    amount,
    amounts,
    digits,
    in_brackets,
    range_of,
)
from vpt.scores.groups import SMALL
from vpt.words import counted, listed


@dataclass(frozen=True)
class CaseCard:
    """A case with pictures. standing: "worst 1 of 26"; error: the largest, in words; note: why there is no picture."""

    case: MaskCase
    standing: str
    panels: tuple[Panel, ...] = ()
    error: str = ""
    note: str = ""

    @property
    def main(self) -> Panel | None:
        """The plane where most pixels are wrong; None without errors."""
        wrong = [panel for panel in self.panels if panel.errors]
        return max(wrong, key=lambda panel: panel.errors, default=None)


@dataclass(frozen=True, eq=False)
class MaskSection:
    """cards: the worst, the median and the best; confusion: voxels (K, K), background first, of `confused` cases."""

    summary: MaskSummary
    cards: tuple[CaseCard, ...]
    confusion: np.ndarray | None = None
    confused: int = 0

    def headline(self, noun: str) -> str:
        """What came out, in one sentence; noun: what its cases are called."""
        summary = self.summary
        dice = {name: digits(summary.dice(str(label)), 3) for label, name in summary.labels.items()}
        several = f"; {', '.join(f'{name}: {value}' for name, value in dice.items())}" if 1 < len(dice) <= 4 else ""
        missed = sum(case.nothing_predicted for case in summary.cases)
        nothing = f"; in {counted(missed, 'case')} nothing was predicted" if missed else ""
        mean = f"{digits(summary.dice(), 3)}{in_brackets(summary.intervals['foreground'].get('Dice'))}"
        return f"Mean Dice {mean} over {counted(len(summary.cases), noun)}{several}{nothing}."

    def tiles(self) -> list[Tile]:
        summary = self.summary
        dice = summary.dice()
        tiles = [Tile("Mean Dice", digits(dice, 3), range_of(summary.intervals["foreground"].get("Dice"), 3))]
        ranked = [case for case in summary.worst_first() if math.isfinite(case.dice)]
        if ranked:
            tiles.append(Tile("Worst case", digits(ranked[0].dice, 3), ranked[0].name))
        return [*tiles, Tile("Cases", str(len(summary.cases)), counted(len(summary.labels), "label"))]

    def view(self) -> dict[str, object]:
        """What `masks.html` draws."""
        summary, colours = self.summary, colours_of(self.summary.labels)
        names = ["background", *summary.labels.values()]
        matrix = self.confusion
        shown = matrix is not None and 2 < len(names) <= MOST_CONFUSED
        ranked = summary.worst_first()
        return {
            "summary": summary,
            "colours": colours,
            "rows": _score_rows(summary),
            "columns": summary.shown,
            "dice": dice_chart(summary, colours) if len(summary.cases) > 1 else None,
            "volumes": volume_charts(summary, colours),
            "trust": trust_chart(summary.trust) if summary.trust else None,
            "confusion": confusion_rows(matrix, names) if matrix is not None and shown else None,
            "confused": self.confused,
            "names": names,
            "cards": [(card, _label_lines(card.case, summary, colours)) for card in self.cards],
            "heads": ["case", "mean Dice", *_case_heads(summary)],
            "cases": [(case, _case_cells(case, summary)) for case in ranked[:MOST_ROWS]],
            "left_out": max(0, len(ranked) - MOST_ROWS),
            "notes": _notes(summary),
        }


def choose_cases(cases: Sequence[MaskCase]) -> list[tuple[MaskCase, str]]:
    """Of cases, the worst first: those that get pictures, with their standing: 12 worst, the median, 4 best."""
    count = len(cases)
    worst = [
        (k, f"{_ordinal(k + 1)}worst of {count}" if count > 1 else "the only case") for k in range(min(WORST, count))
    ]
    if 1 < count <= WORST:
        worst[-1] = (count - 1, f"best of {count}")
    rest = [(k, "median") for k in [count // 2] if k >= WORST]
    best = [
        (k, f"{_ordinal(count - k)}best of {count}") for k in range(max(WORST, count - BEST), count) if k != count // 2
    ]
    return [(cases[k], words) for k, words in [*worst, *rest, *best]]


def _ordinal(number: int) -> str:
    if number == 1:
        return ""
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending} "


def _score_rows(summary: MaskSummary) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(key, name, cells) per label and of the foreground; a cell is a mean and its interval."""
    named = [*((str(label), name) for label, name in summary.labels.items()), ("foreground", "mean of labels")]
    rows = []
    for key, name in named:
        means, ends = summary.means[key], summary.intervals[key]
        cells = [
            (digits(means.get(score, math.nan), SHOWN[score][1]), range_of(ends.get(score), SHOWN[score][1]))
            for score in summary.shown
        ]
        rows.append((key, name, cells))
    errors = amounts([_size_error(summary.means[key], summary.unit) for key, _ in named])
    return [(key, name, [*cells, (error, "")]) for (key, name, cells), error in zip(rows, errors, strict=True)]


def _size_error(means: Mapping[str, float], unit: str) -> float:
    pred, ref = ("volume_pred_ml", "volume_ref_ml") if unit == "mm" else ("n_pred", "n_ref")
    return means.get(pred, math.nan) - means.get(ref, math.nan)


def _label_lines(case: MaskCase, summary: MaskSummary, colours: Mapping[int, str]) -> list[tuple[str, str, str]]:
    """Of a card: colour, name, and Dice with both sizes, of each label that is in truth or prediction.

    Not of those that the case was not annotated for.
    """
    lines = []
    for label, name in summary.labels.items():
        true, found = (case.size(label, whose, summary.unit) for whose in ("ref", "pred"))
        if not (true or found) or math.isnan(true):
            continue
        dice = digits(case.scores[label].get("Dice", math.nan), 3)
        nothing = ", nothing predicted" if not found else ", nothing there" if not true else ""
        sizes = f"{amount(found)} {summary.size_unit} predicted, {amount(true)} {summary.size_unit} true"
        lines.append((colours[label], name, f"Dice {dice}; {sizes}{nothing}"))
    return lines


def _case_heads(summary: MaskSummary) -> list[str]:
    """What `_case_cells` has of every label."""
    units = {"Dice": "Dice", "HD95": f"HD95 ({summary.unit})"}
    scores = [words for key, words in units.items() if key in summary.shown]
    scores.append(f"error ({summary.size_unit})")
    return [f"{name}: {words}" for name in summary.labels.values() for words in scores]


def _case_cells(case: MaskCase, summary: MaskSummary) -> list[tuple[str, str]]:
    """Cells of the table of all cases: what sorts, and what is shown."""
    values, signs = [(case.dice, 3)], [""]
    for label in summary.labels:
        scores = case.scores[label]
        values += [(scores.get(key, math.nan), SHOWN[key][1]) for key in ("Dice", "HD95") if key in summary.shown]
        true, found = (case.size(label, whose, summary.unit) for whose in ("ref", "pred"))
        values.append((found - true, 3 if summary.unit == "mm" else 0))
        signs += [""] * (len(values) - len(signs) - 1) + ["+"]
    return [
        (repr(value) if math.isfinite(value) else "", digits(value, count, sign))
        for (value, count), sign in zip(values, signs, strict=True)
    ]


def _notes(summary: MaskSummary) -> list[str]:
    """How means and intervals came about, and what they leave out."""
    counts = summary.counts["foreground"]
    empty = EMPTY_WORDS.get(str(summary.settings.get("empty")), "")
    words = {
        "both_empty": f"absent in truth and prediction{f' ({empty})' if empty else ''}",
        "missed": "missed altogether",
        "false_positives": "predicted where there is none",
        "hd95_undefined": "without a distance",
    }
    happened = [f"{counts[key]} {said}" for key, said in words.items() if counts.get(key)]
    few = f" Of {len(summary.cases)} they say little." if len(summary.cases) < SMALL else ""
    notes = [f"Intervals: 95 %, {summary.method}.{few}" if summary.method and len(summary.cases) > 1 else ""]
    notes.append(
        f"Of {counted(len(summary.cases), 'case')} x {counted(len(summary.labels), 'label')}: {', '.join(happened)}."
        if happened
        else ""
    )
    notes.append(_tolerance(summary))
    if summary.missing:
        notes.append(
            f"{counted(len(summary.missing), 'reference')} without a prediction, not scored: "
            f"{listed(summary.missing, 20)}."
        )
    doubts = [f"Warning: {doubt}" for doubt in summary.doubts]
    return [note for note in (*doubts, *notes, *summary.notes) if note]


def _tolerance(summary: MaskSummary) -> str:
    """Within what distance surfaces agree for NSD, of all labels and of those with one of their own."""
    unit, settings = summary.unit, summary.settings
    found = settings.get(f"tolerance_{unit}")
    if found is None or "NSD" not in summary.shown:
        return ""
    own = settings.get(f"tolerances_{unit}", {}).items()
    others = ", ".join(f"{summary.labels.get(int(label), label)}: {distance:g} {unit}" for label, distance in own)
    return f"NSD within {found:g} {unit}{f' ({others})' if others else ''}, HD95 and ASSD by surface voxels."

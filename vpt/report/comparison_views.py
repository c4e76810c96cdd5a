"""A comparison as people see it: the picture, the page around it, the table of a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from vpt.files import atomic
from vpt.report.pages import render
from vpt.report.parts import Tile
from vpt.report.report_page import FactGroup
from vpt.report.strips import Strip, Strips, strips_of
from vpt.scores.bootstrap import LEVEL
from vpt.scores.comparison import Result
from vpt.words import counted

TERMINAL = {  # the columns that fit
    "shown": "method",
    "score": "score",
    "interval": "95 % interval",
    "gain": "minus head only",
    "verdict": "to the best",
    "trained": "trained",
    "total": "seconds",
}
SCORES = ("shown", "score", "seeds", "behind", "verdict", "gain")  # columns of the page's tables
COSTS = ("shown", "trained", "prompts", "artifact", "memory", "step", "seconds", "total", "chosen")
RANGES = {"score": "interval", "behind": "margin", "gain": "gain_margin"}  # what stands below a number


def draw_comparison(
    path: Path, results: Sequence[Result], measured: Sequence[Mapping[str, Any]], title: str, score: str
) -> None:
    """A dot per seed, the mean and its interval per method; names with the number of trained parameters."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.36 * len(results)), layout="constrained")
    axes = figure.subplots()
    for place, (result, found) in enumerate(zip(results, measured, strict=True)):
        if found["interval"]:
            axes.plot(found["interval"], [place, place], color="#9ecae1", lw=6, solid_capstyle="butt", zorder=1)
        axes.scatter(result.scores.mean(1), [place] * len(result.scores), s=14, color="#3182bd", zorder=3)
        axes.scatter(result.mean, place, marker="|", s=160, color="black", zorder=2)
    words = [f"{_literal(result.shown)}  ({result.finals[0]['counts']['trained']:,})" for result in results]
    axes.set_yticks(range(len(results)), words, fontsize=9)
    axes.set_ylim(len(results) - 0.4, -0.6)  # the best on top
    axes.axvline(results[0].mean, color="0.8", lw=1, zorder=0)
    legend = f"line: mean, dots: seeds, bar: {LEVEL:.0%} interval over cases and seeds"
    axes.set_xlabel(f"test {score}\n{legend}", fontsize=9)
    figure.suptitle(f"{_literal(_shortened(title))} (trained parameters)", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    with atomic(path) as part:
        figure.savefig(part, dpi=120, format="png")


def _shortened(text: str, most: int = 90) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _literal(text: str) -> str:
    """Dollars in names are no mathematics."""
    return text.replace("$", r"\$")


def comparison_page(
    rows: Sequence[Mapping[str, str]],
    measured: Sequence[Mapping[str, Any] | None],
    columns: Mapping[str, str],
    title: str,
    score: str,
    said: str,
    facts: Sequence[FactGroup] = (),
) -> str:
    """`compare.html`, whole in one file; columns: key of a row -> heading; said: how the scores came about."""
    done = [(row, found) for row, found in zip(rows, measured, strict=True) if found]
    return render(
        "compare.html",
        title=title,
        headline=_headline(rows, score),
        tiles=_tiles(rows, measured, score),
        chart=_strips(done, score) if done else None,
        said=said,
        scores=[key for key in SCORES if key != "gain" or any(row["gain"] for row in rows)],
        costs=[key for key in COSTS if key != "memory" or any(row["memory"].strip("-") for row in rows)],
        ranges=RANGES,
        worded=("shown", "verdict", "chosen"),
        numbers=("score", "behind", "gain", "trained", "prompts", "artifact", "memory", "step", "seconds", "total"),
        heads=columns,
        rows=rows,
        starred=any("*" in row["gain"] for row in rows),
        notes=_notes(rows),
        facts=facts,
    )


def _strips(done: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]], score: str) -> Strips:
    strips = [
        Strip(
            row["shown"],
            f"{found['parameters']['trained']:,} trained",
            tuple(found["seeds"]),
            found["score"],
            tuple(found["interval"]) if found["interval"] else None,
        )
        for row, found in done
    ]
    best, last = strips[0], strips[-1]
    alt = f"Test {score} of {counted(len(strips), 'method')}, from {best.mean:.3f} ({best.name}) "
    return strips_of(strips, f"test {score}", f"{alt}to {last.mean:.3f} ({last.name})")


def _tiles(rows: Sequence[Mapping[str, str]], measured: Sequence[Mapping[str, Any] | None], score: str) -> list[Tile]:
    done = [found for found in measured if found]
    if not done:
        return []
    best, *others = [row for row in rows if row["score"]]
    near = sum(row["verdict"] == "within noise" for row in others)
    hours = sum(found["seconds_in_all"] for found in done) / 3600
    return [
        Tile(f"Best test {score}", best["score"], best["interval"].strip("-")),
        Tile("Trained parameters of it", best["trained"], f"artifact of {best['artifact']} KB"),
        *([Tile("Within noise of it", f"{near} of {len(others)}", "of the others")] if others else []),
        Tile("Time of all trainings", f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min", "searches included"),
    ]


def _headline(rows: Sequence[Mapping[str, str]], score: str) -> str:
    """What came out, in a sentence."""
    done = [row for row in rows if row["score"]]
    if not done:
        return "Nothing is finished yet."
    first, *others = done
    interval = f" ({first['interval']})" if first["interval"] not in ("", "-") else ""
    near = sum(row["verdict"] == "within noise" for row in others)
    of = f"{near} of the {len(others)} others" if others[1:] else others[0]["shown"] if others else ""
    be = "are" if near > 1 else "is" if near or others[1:] else "is not"
    within = f"; {of} {be} within noise of it" if others else ""
    name = f"{first['shown'][:1].upper()}{first['shown'][1:]}"
    return f"{name} is the best: test {score} {first['score']}{interval}{within}."


def terminal_table(rows: Sequence[Mapping[str, str]], title: str, score: str) -> Any:
    """The columns that fit, and below them what failed or is missing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    keys = tuple(key for key in TERMINAL if key != "gain" or any(row["gain"] for row in rows))
    least = {"shown": 15, "verdict": 6}  # these wrap, the others never
    most = {"verdict": 9} if get_terminal_size().columns < 90 else {}  # else the last column is cut off at 80
    table = Table(
        title=Text(f"{title}: test {score}"), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0
    )
    for key in keys:
        words = TERMINAL[key]
        wraps = key in least
        justify: Any = "left" if wraps else "right"
        table.add_column(
            words,
            justify=justify,
            no_wrap=not wraps,
            overflow="fold",
            min_width=least.get(key),
            max_width=most.get(key),
        )
    for row in rows:
        table.add_row(*(Text(row[key]) for key in keys))
    sure = ["* more than noise"] if any("*" in row["gain"] for row in rows) else []
    return Group(table, *map(Text, [*sure, *_notes(rows)]))


def _notes(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What failed or is missing, a sentence per method."""
    return [f"{row['shown']}: {row['note']}" for row in rows if row["note"]]

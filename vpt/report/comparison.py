"""The table, the picture and the page of `vpt compare`, from the results that its trainings left."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import numpy as np

from vpt.files import atomic, read_json, write_json, write_text
from vpt.scores.report import LEVEL, RESAMPLES, SEED

COLUMNS = {
    "shown": "method",
    "score": "score",
    "interval": "95 % interval",
    "seeds": "per seed",
    "behind": "minus the best",
    "margin": "95 % interval of it",
    "verdict": "difference",
    "gain": "minus head only",
    "gain_margin": "95 % interval of that",
    "trained": "trained parameters",
    "prompts": "of them prompts",
    "artifact": "artifact, KB",
    "memory": "peak memory, MB",
    "step": "ms per step",
    "seconds": "s per run",
    "total": "s in all, with the search",
    "chosen": "chosen",
    "note": "note",
}


@dataclass(frozen=True)
class Result:
    """What is known of a method: (seeds, cases) of scores, the records of its finals, and of every training.

    cases: those with a score in all methods, so that these are comparable; note: what failed, or is missing.
    """

    name: str
    shown: str
    cases: tuple[str, ...]
    scores: np.ndarray
    finals: tuple[dict[str, Any], ...]
    every: tuple[dict[str, Any], ...]
    note: str = ""

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


def read_results(out: Path, shown: Mapping[str, str], seeds: int) -> list[Result]:
    """The results of the named methods (name -> name in tables) in a comparison's folder, the best first.

    Seeds from `seeds` on, of an earlier comparison that had more, are left out.
    """
    every = {name: tuple(read_json(path) for path in sorted((out / name).glob("*/result.json"))) for name in shown}
    finals = {
        name: tuple(sorted((one for one in all_ if one["seed"] < seeds and one.get("tested")), key=_seed))
        for name, all_ in every.items()
    }
    tested = [set(one["tested"]) for each in finals.values() for one in each]
    cases = tuple(sorted(set.intersection(*tested))) if tested else ()
    results = []
    for name, words in shown.items():
        done = finals[name] if cases else ()
        scores = np.array([[one["tested"][case] for case in cases] for one in done]).reshape(len(done), len(cases))
        results.append(Result(name, words, cases, scores, done, every[name], _note(every[name], len(done), seeds)))
    return sorted(results, key=lambda result: -result.mean if result.finals else 1.0)


def _seed(record: Mapping[str, Any]) -> int:
    return int(record["seed"])


def _note(every: Sequence[Mapping[str, Any]], done: int, seeds: int) -> str:
    failed = [one["failed"] for one in every if "failed" in one]
    missing = f"{done} of {seeds} seeds" if done < seeds else ""
    without = "no test case has a score" if not done and any("tested" in one for one in every) else ""
    why = f"{len(failed)} of {len(every)} trainings failed (--retry-failed tries again): {failed[0]}" if failed else ""
    return "; ".join(filter(None, [missing, without, why]))


def resampled(results: Sequence[Result], resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Name -> mean score in each of the resamples, the same patients in all methods, so that differences are paired.

    Patients are drawn with replacement; and of each method, seeds. NaN where all cases are one patient's.
    """
    done = [result for result in results if result.finals]
    if not done:
        return {}
    patients = done[0].finals[0]["patients"]
    names, owner = np.unique([patients[case] for case in done[0].cases], return_inverse=True)
    if len(names) < 2:
        return {result.name: np.full(resamples, np.nan) for result in done}
    sums = np.zeros((len(names), sum(len(result.scores) for result in done)))
    np.add.at(sums, owner, np.concatenate([result.scores for result in done]).T)  # (patients, seeds of all methods)
    drawn = _draw_patients(np.column_stack([sums, np.bincount(owner)]), resamples)
    means = drawn[:, :-1] / drawn[:, -1:]
    rng, first, found = np.random.default_rng(SEED + 1), 0, {}
    for result in done:
        count = len(result.scores)
        seeds = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
        found[result.name] = (seeds * means[:, first : first + count]).sum(1)
        first += count
    return found


def _draw_patients(sums: np.ndarray, resamples: int, rows: int = 100) -> np.ndarray:
    """(patients, K) -> (resamples, K): sums over patients drawn with replacement, some `rows` at a time for memory."""
    rng, count = np.random.default_rng(SEED), len(sums)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    chance = np.full(count, 1 / count)
    return np.concatenate([rng.multinomial(count, chance, size=size).astype(float) @ sums for size in sizes])


def table_rows(
    results: Sequence[Result], draws: Mapping[str, np.ndarray], control: str | None = None
) -> list[dict[str, str]]:
    """A row of words per method, keys as in COLUMNS; draws: see `resampled`; control: what everything should beat."""
    head = _finished(results, control)
    rows = []
    for result in results:
        row = dict.fromkeys(COLUMNS, "")
        row |= {"shown": result.shown, "note": result.note}
        if result.finals:
            row |= _scores(result, results[0], head, draws) | _costs(result)
        rows.append(row)
    return rows


def _finished(results: Sequence[Result], name: str | None) -> Result | None:
    return next((result for result in results if result.name == name and result.finals), None)


def _scores(result: Result, best: Result, control: Result | None, draws: Mapping[str, np.ndarray]) -> dict[str, str]:
    behind, margin, verdict = "", "", "the best"
    if result is not best:
        low, high = _interval(draws[result.name] - draws[best.name])
        behind, margin = f"{result.mean - best.mean:+.3f}", _range(low, high, "+.3f")
        verdict = "more than noise" if high < 0 else "within noise" if np.isfinite(high) else "unknown"
    gain, gain_margin = "", ""
    if control is not None and result is not control:
        low, high = _interval(draws[result.name] - draws[control.name])
        sure = " *" if low > 0 or high < 0 else ""
        gain, gain_margin = f"{result.mean - control.mean:+.3f}{sure}", _range(low, high, "+.3f")
    low, high = _interval(draws[result.name])
    return {
        "score": f"{result.mean:.3f}",
        "interval": _range(low, high, ".3f"),
        "seeds": ", ".join(f"{seed.mean():.3f}" for seed in result.scores),
        "behind": behind,
        "margin": margin,
        "verdict": verdict,
        "gain": gain,
        "gain_margin": gain_margin,
    }


def _costs(result: Result) -> dict[str, str]:
    first = result.finals[0]
    memory = [one["peak_memory"] for one in result.finals if one["peak_memory"]]
    settings = ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in first["settings"].items())
    return {
        "trained": f"{first['counts']['trained']:,}",
        "prompts": f"{first['counts']['prompts']:,}",
        "artifact": f"{first['artifact_bytes'] / 1e3:,.0f}",
        "memory": f"{max(memory) / 1e6:,.0f}" if memory else "-",
        "step": f"{1000 * min(one['seconds_per_step'] for one in result.finals):.1f}",
        "seconds": f"{min(one['seconds'] for one in result.finals):.1f}",
        "total": f"{sum(one.get('seconds', 0) for one in result.every):.0f}",
        "chosen": settings,
    }


def numbers(result: Result, best: Result, control: Result | None, draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the row of a method says, as numbers: shares of 1, seconds, bytes; None where there is no interval."""

    def interval(values: np.ndarray) -> list[float] | None:
        return [*_interval(values)] if np.isfinite(values).all() else None

    first, memory = result.finals[0], [one["peak_memory"] for one in result.finals if one["peak_memory"]]
    return {
        "score": result.mean,
        "interval": interval(draws[result.name]),
        "seeds": [float(seed.mean()) for seed in result.scores],
        "cases": len(result.cases),
        "minus_the_best": result.mean - best.mean,
        "interval_of_that": interval(draws[result.name] - draws[best.name]),
        "minus_head_only": result.mean - control.mean if control else None,
        "interval_of_minus_head_only": interval(draws[result.name] - draws[control.name]) if control else None,
        "parameters": first["counts"],
        "artifact_bytes": first["artifact_bytes"],
        "peak_memory_bytes": max(memory) if memory else None,
        "seconds_per_step": min(one["seconds_per_step"] for one in result.finals),
        "seconds_per_run": min(one["seconds"] for one in result.finals),
        "seconds_in_all": sum(one.get("seconds", 0) for one in result.every),
        "chosen": first["settings"],
    }


def _range(low: float, high: float, form: str) -> str:
    return f"{low:{form}} to {high:{form}}" if np.isfinite(low) else "-"


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


# --- files ------------------------------------------------------------------------------------------------------------


def write_comparison(
    out: Path,
    shown: Mapping[str, str],
    seeds: int,
    title: str,
    score: str,
    *,
    control: str | None = None,
    together: bool = True,
) -> Any:
    """Write compare.csv, compare.json, compare.png and compare.html into `out` -> the table for a terminal.

    compare.json has the words of the table and, under `measured`, the numbers behind them.

    control: the method without prompts, the head alone, from which differences are shown as well; together: the finals
    learned from training and validation cases.
    """
    results = read_results(out, shown, seeds)
    draws = resampled(results)
    rows = table_rows(results, draws, control)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS.values())
    writer.writerows(row.values() for row in rows)
    write_text(out / "compare.csv", text.getvalue())
    head = _finished(results, control)
    measured = [numbers(result, results[0], head, draws) if result.finals else None for result in results]
    content = [
        {"name": result.name, **row, "measured": found}
        for result, row, found in zip(results, rows, measured, strict=True)
    ]
    write_json(out / "compare.json", {"title": title, "score": score, "seeds": seeds, "methods": content})
    done = [result for result in results if result.finals]
    (out / "compare.png").unlink(missing_ok=True)  # one of an earlier comparison would not fit the table
    if done:
        _draw(out / "compare.png", done, draws, title, score)
    write_text(out / "compare.html", _page(out, rows, title, score, _said(done, together)))
    return _terminal(rows, title, score)


def _draw(path: Path, results: Sequence[Result], draws: Mapping[str, np.ndarray], title: str, score: str) -> None:
    """A dot per seed, the mean and its interval per method; names with the number of trained parameters."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.36 * len(results)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(results):
        low, high = _interval(draws[result.name])
        axes.plot([low, high], [place, place], color="#9ecae1", lw=6, solid_capstyle="butt", zorder=1)
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


def _said(done: Sequence[Result], together: bool) -> str:
    """How the scores came about, for the page."""
    if not done:
        return "Nothing is finished yet."
    tested = {case for result in done for one in result.finals for case in one["tested"]}
    learned = "from training and validation cases together" if together else "from its few training cases"
    sentences = [
        "The best first. Rate and weight decay were chosen on the validation cases; then each method learned "
        f"{learned} and was tested once per seed, after its last epoch.",
        f"Scores are means over {len(done[0].cases)} test cases.",
    ]
    if left := len(tested) - len(done[0].cases):
        sentences.append(f"Left out: {left}, for which a method has no score (nothing to find, nor found).")
    patients = done[0].finals[0]["patients"]
    if len({patients[case] for case in done[0].cases}) < 2:
        sentences.append("They are one patient's, so there are no intervals.")
        return " ".join(sentences)
    sentences.append(
        f"Intervals and differences: {LEVEL:.0%}, percentile bootstrap over patients and seeds, {RESAMPLES:,} "
        "resamples; a difference to the best is more than noise where its interval lies below zero. The best was "
        "chosen among all, so its score is a little too high. A difference to the head alone is starred where its "
        "interval leaves out zero."
    )
    if any(len(result.scores) < 2 for result in done):
        sentences.append("Of a method with one seed the interval leaves out what another seed would change.")
    return " ".join(sentences)


def _notes(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What failed or is missing, a sentence per method."""
    return [f"{row['shown']}: {row['note']}" for row in rows if row["note"]]


def _page(out: Path, rows: Sequence[Mapping[str, str]], title: str, score: str, said: str) -> str:
    keys = [key for key in COLUMNS if key != "note"]  # they would be far to the right
    head = "".join(f'<th class="{key}">{html.escape(COLUMNS[key])}</th>' for key in keys)
    body = "\n".join(
        "<tr>" + "".join(f'<td class="{key}">{html.escape(row[key])}</td>' for key in keys) + "</tr>" for row in rows
    )
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in _notes(rows))
    image, path = "", out / "compare.png"
    if path.exists():
        picture = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="scores of all methods" src="data:image/png;base64,{picture}">'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; color: #222 }}
p {{ max-width: 50rem }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 13px; line-height: 1.35 }}
th, td {{ padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top }}
td {{ white-space: nowrap }}
th {{ vertical-align: bottom }}
.shown, .verdict, .chosen {{ text-align: left }}
tbody tr:first-child {{ font-weight: 600 }}
img {{ max-width: 100%; margin: 1rem 0 }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p>Test {html.escape(score)}. {html.escape(said)}</p>
{image}
<div><table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
{notes}
</body></html>
"""


def _terminal(rows: Sequence[Mapping[str, str]], title: str, score: str) -> Any:
    """The columns that fit, and below them what failed or is missing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    keys: tuple[str, ...] = ("shown", "score", "interval", "gain", "verdict", "trained", "total")
    keys = tuple(key for key in keys if key != "gain" or any(row["gain"] for row in rows))
    least = {"shown": 15, "verdict": 6}  # these wrap, the others never
    most = {"verdict": 9} if get_terminal_size().columns < 90 else {}  # else the last column is cut off at 80
    table = Table(
        title=Text(f"{title}: test {score}"), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0
    )
    for key in keys:
        words = {"trained": "trained", "total": "seconds", "verdict": "to the best"}.get(key, COLUMNS[key])
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

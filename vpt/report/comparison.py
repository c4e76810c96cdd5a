"""The table, the picture and the page of `vpt compare`, from the results that its trainings left."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.files import write_json, write_text
from vpt.report.comparison_views import comparison_page, draw_comparison, terminal_table
from vpt.report.report_page import FactGroup
from vpt.scores.bootstrap import LEVEL, RESAMPLES
from vpt.scores.comparison import Result, measure, read_results
from vpt.words import counted, listed

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


def write_comparison(
    out: Path,
    shown: Mapping[str, str],
    seeds: int,
    title: str,
    score: str,
    *,
    control: str | None = None,
    together: bool = True,
    facts: Sequence[FactGroup] = (),
) -> Any:
    """Write compare.csv, compare.json, compare.png and compare.html into `out` -> the table for a terminal.

    compare.json has the words of the table and, under `measured`, the numbers behind them.

    control: the method without prompts, the head alone, from which differences are shown as well; together: the finals
    learned from training and validation cases; facts: how to repeat it, for the page.
    """
    results = read_results(out, shown, seeds)
    measured = measure(results, control)
    rows = table_rows(results, measured, control)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS.values())
    writer.writerows(row.values() for row in rows)
    write_text(out / "compare.csv", text.getvalue())
    content = [
        {"name": result.name, **row, "measured": found}
        for result, row, found in zip(results, rows, measured, strict=True)
    ]
    write_json(out / "compare.json", {"title": title, "score": score, "seeds": seeds, "methods": content})
    done = [result for result in results if result.finals]
    picture = out / "compare.png"
    picture.unlink(missing_ok=True)  # one of an earlier comparison would not fit the table
    if done:
        draw_comparison(picture, done, [found for found in measured if found], title, score)
    page = comparison_page(rows, measured, COLUMNS, title, score, _said(done, together), facts)
    write_text(out / "compare.html", page)
    return terminal_table(rows, title, score)


def table_rows(
    results: Sequence[Result], measured: Sequence[Mapping[str, Any] | None], control: str | None = None
) -> list[dict[str, str]]:
    """A row of words per method, keys as in COLUMNS; measured, control: see `measure`."""
    rows = []
    for place, (result, found) in enumerate(zip(results, measured, strict=True)):
        row = dict.fromkeys(COLUMNS, "") | {"shown": result.shown, "note": result.note}
        if found:
            row |= _scores(found) | (_to_the_best(found) if place else {"verdict": "the best"})
            row |= ({} if result.name == control else _gain(found)) | _costs(found)
        rows.append(row)
    return rows


def _scores(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "score": f"{found['score']:.3f}",
        "interval": _range(found["interval"], ".3f"),
        "seeds": ", ".join(f"{seed:.3f}" for seed in found["seeds"]),
    }


def _to_the_best(found: Mapping[str, Any]) -> dict[str, str]:
    interval = found["interval_of_that"]
    verdict = "unknown" if interval is None else "more than noise" if interval[1] < 0 else "within noise"
    return {
        "behind": f"{found['minus_the_best']:+z.3f}",
        "margin": _range(interval, "+z.3f"),
        "verdict": verdict,
    }


def _gain(found: Mapping[str, Any]) -> dict[str, str]:
    """The difference to the head alone, starred where it is more than noise."""
    if found["minus_head_only"] is None:
        return {}
    interval = found["interval_of_minus_head_only"]
    sure = " *" if interval and (interval[0] > 0 or interval[1] < 0) else ""
    return {"gain": f"{found['minus_head_only']:+z.3f}{sure}", "gain_margin": _range(interval, "+z.3f")}


def _costs(found: Mapping[str, Any]) -> dict[str, str]:
    memory = found["peak_memory_bytes"]
    return {
        "trained": f"{found['parameters']['trained']:,}",
        "prompts": f"{found['parameters']['prompts']:,}",
        "artifact": f"{found['artifact_bytes'] / 1e3:,.0f}",
        "memory": f"{memory / 1e6:,.0f}" if memory else "-",
        "step": f"{1000 * found['seconds_per_step']:.1f}",
        "seconds": f"{found['seconds_per_run']:.1f}",
        "total": f"{found['seconds_in_all']:.0f}",
        "chosen": ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in found["chosen"].items()),
    }


def _range(interval: Sequence[float] | None, form: str) -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _said(done: Sequence[Result], together: bool) -> str:
    """How the scores came about, for the page."""
    if not done:
        return "Nothing is finished yet."
    tested = {case for result in done for one in result.finals for case in one["tested"]}
    learned = "from training and validation cases together" if together else "from its few training cases"
    sentences = [
        "The best first. Rate and weight decay were chosen on the validation cases; then each method learned "
        f"{learned} and was tested once per seed, after its last epoch.",
        f"Scores are means over {counted(len(done[0].cases), 'test case')}.",
    ]
    if left := len(tested) - len(done[0].cases):
        sentences.append(f"Left out: {left}, for which a method has no score (nothing to find, nor found).")
    weights = dict.fromkeys(one["weights"] for result in done for one in result.finals if one.get("weights"))
    if weights:
        sentences.append(f"Weights of the encoder: {listed(weights)}.")
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

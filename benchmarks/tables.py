"""Measured numbers -> Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Found = Mapping[str, Any]


def table_of(case: Found) -> str:
    """A case as a table with its title and conditions; ratios are of minima, and of medians in brackets."""
    base = case["variants"].get(case["base"])
    with_peak = any(row.get("peak_mib") is not None for row in case["variants"].values())
    names = ["form", "s, min (median)", "speed against the first"]
    names += ["GFLOP", "over the floor", "over the floor of its shapes"]
    names += ["peak, MiB", "of the first", "of it filled, MiB", "of the first's"] if with_peak else []
    lines = [f"**{case['title']}**", "", _row(names), _row(["---"] * len(names))]
    for row in case["variants"].values():
        cells = [row["label"], f"{_seconds(row['min'])} ({_seconds(row['median'])})", _ratio(base, row)]
        cells += [_number(row["gflop"]), *(_number(over_floor(case, row, shape)) for shape in ("square", "block"))]
        if with_peak:
            for key in ("peak_mib", "filled_mib"):
                mib = row.get(key)
                of_base = None if mib is None or not base or not base.get(key) else mib / base[key]
                cells += ["-" if mib is None else f"{mib:.0f}", _number(of_base)]
        lines.append(_row(cells))
    return "\n".join([*lines, "", conditions(case), *checks_of(case)])


def over_floor(case: Found, row: Found, shape: str = "square") -> float | None:
    """Seconds over counted FLOPs divided by the matmul rate of the row's dtype; None where no FLOPs were counted.

    Of float32 the rate is that of the faster library.
    """
    if not row["gflop"]:
        return None
    rates = [case["gflops"].get(f"{row['dtype']} {shape}{library}", 0.0) for library in ("", " oneDNN")]
    return row["min"] * max(rates) / row["gflop"]


def conditions(case: Found) -> str:
    """One paragraph: when, with what, and the matmul rates of the same run."""
    measured, rates = case["measured"], case["gflops"]
    settings = ", ".join(f"{key} {value}" for key, value in case["settings"].items())
    text = (
        f"{settings}; {measured['threads']} threads, torch {measured['torch']}, allocator {measured['allocator']}, "
        f"{measured['rounds']} rounds by turns, {measured['date']}, commit {measured['commit']}, load before "
        f"{measured['load before']}. Matmul in the same run, GFLOP/s: "
    )
    text += ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) + "."
    memory = measured.get("memory at commit", measured["commit"])
    return text if memory == measured["commit"] else f"{text} Memory: commit {memory}."


def checks_of(case: Found) -> list[str]:
    found = [f"{name} {_check(name, value)}" for name, value in (case.get("checks") or {}).items()]
    return ["", f"Checks: {'; '.join(found)}."] if found else []


def _check(name: str, value: float) -> str:
    return f"{value:.6f}" if "cosine" in name else f"{value:.2g}"


def _ratio(base: Found | None, row: Found) -> str:
    if base is None:
        return "-"
    return f"{base['min'] / row['min']:.2f} ({base['median'] / row['median']:.2f})"


def _seconds(value: float) -> str:
    return f"{value:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""Folders of `vpt compare` -> the tables of docs/results: every set, and every method minus the head alone.

python benchmarks/compared.py runs/compare-*          # as Markdown
python benchmarks/compared.py runs/compare-* --only-differences
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLUMNS = {
    "shown": "method",
    "score": "test accuracy",
    "interval": "95 % interval",
    "seeds": "per seed",
    "gain": "minus the linear probe",
    "trained": "trained parameters",
    "artifact": "artifact, KB",
    "memory": "peak memory, MB",
    "step": "ms per step",
    "total": "s in all",
    "chosen": "chosen",
}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "compare.json").read_text())


def table_of(methods: list[dict[str, Any]]) -> str:
    lines = [_row(list(COLUMNS.values())), _row(["---"] * len(COLUMNS))]
    for row in methods:
        if row["measured"]:
            lines.append(_row([_difference(row) if key == "gain" else row[key] for key in COLUMNS]))
    return "\n".join(lines)


def differences(compared: dict[str, dict[str, Any]]) -> str:
    """A row per method, a column per set; differences that are more than noise in bold."""
    found = {name: {row["name"]: row for row in each["methods"]} for name, each in compared.items()}
    first = {name: row["shown"] for each in found.values() for name, row in each.items()}
    lines = [_row(["method", *found]), _row(["---"] * (1 + len(found)))]
    for name, shown in first.items():
        cells = [_difference(each[name]) if name in each else "-" for each in found.values()]
        if any(cell != "-" for cell in cells):
            lines.append(_row([shown, *cells]))
    return "\n".join(lines)


def _difference(row: dict[str, Any]) -> str:
    if not row["gain"]:
        return "-"
    gain, sure = row["gain"].removesuffix(" *"), row["gain"].endswith("*")
    return f"**{gain} ({row['gain_margin']})**" if sure else f"{gain} ({row['gain_margin']})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only-differences", action="store_true")
    args = parser.parse_args()
    compared = {folder.name.removeprefix("compare-"): read(folder) for folder in args.folders}
    if not args.only_differences:
        for name, each in compared.items():
            print(f"**{name}**\n\n{table_of(each['methods'])}\n")
    print(differences(compared))


if __name__ == "__main__":
    main()

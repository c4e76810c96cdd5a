"""The JSON of a machine -> the tables of docs/speed.md, between its markers, and the picture beside it.

python benchmarks/report.py                          # this machine's, beside what others reached
python benchmarks/report.py --machine NAME --check   # exit 1 if the document is not what the JSON says
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import growing
from results import FOLDER, MENDED, machine_name, read
from tables import conditions, table_of
from targets import GATES, TARGETS, table

DOCUMENT = Path(__file__).parents[1] / "docs" / "speed.md"
PICTURE = DOCUMENT.with_name("growth.png")


def blocks(machine: str) -> dict[str, str]:
    """Marker -> Markdown: the tables of one machine, what it lacks of another, and targets of all of them."""
    results = read(machine)
    found = results["sections"]
    others = {path.stem: read(path.stem)["sections"] for path in sorted(FOLDER.glob("*.json")) if path.stem != machine}
    whole = {
        name: sections for name, sections in others.items() if "vit_step" in sections
    }  # else of one benchmark alone
    made = {
        "machine": _machine(results["machine"]),
        "targets": table(TARGETS, {machine: found, **whole}),
        "gates": table(GATES, {machine: found, **whole}),
        "growth": _growth(found),
        "mended-settings": f"`{' '.join(f'{key}={value}' for key, value in MENDED.items())}`",
    }
    for section in (
        "vit_step",
        "vit_inference",
        "cached_prefix",
        "sam",
        "lite_medsam",
        "mask_head",
        "encoders",
        "volumes",
    ):
        for kind in (section, f"{section} mended"):
            measured = [sections[kind] for sections in (found, *others.values()) if kind in sections]
            made[kind.replace(" ", "-")] = "\n\n".join(_case(case) for case in next(iter(measured), {}).values())
    return made


def _case(case: Mapping[str, Any]) -> str:
    """As `timing.measure` makes it; of another shape, its numbers as they are."""
    if "variants" in case and "gflops" in case:
        return table_of(case)
    rows = [f"| {key} | {f'{value:.3g}' if isinstance(value, float) else value} |" for key, value in case.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _growth(found: Mapping[str, Any]) -> str:
    if not found.get("growth"):
        return ""
    case = next(iter(found["growth"].values()))
    return f"![time and memory against batch, tokens, depth, image and volume]({PICTURE.name})\n\n" + "\n".join(
        [growing.table(found), "", conditions(case)]
    )


def _machine(facts: Mapping[str, Any]) -> str:
    listed = [f"{key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in facts.items()]
    return "\n".join(f"* {line}" for line in listed)


def fill(text: str, made: Mapping[str, str]) -> str:
    """Replace what stands between `<!-- NAME -->` and `<!-- end NAME -->`."""
    for name, block in made.items():
        body = block or "Not measured yet."
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        text = pattern.sub(lambda found, body=body: f"{found[1]}\n{body}\n{found[2]}", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machine", default=machine_name())
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the document differs")
    args = parser.parse_args()
    if not (FOLDER / f"{args.machine}.json").exists():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.json"))) or "none"
        sys.exit(f"benchmarks/results/{args.machine}.json: not there; run `make bench`, or choose of: {known}")
    old = DOCUMENT.read_text()
    new = fill(old, blocks(args.machine))
    if args.check:
        sys.exit(
            None if new == old else f"docs/speed.md is not what {args.machine}.json says; run benchmarks/report.py"
        )
    DOCUMENT.write_text(new)
    growing.draw(read(args.machine)["sections"], PICTURE)


if __name__ == "__main__":
    main()

"""Has anything become slower? Fresh quick ratios beside those in the committed JSON of this machine, with a margin.

    python benchmarks/guard.py                  # about two minutes on idle cores
    python benchmarks/guard.py --margin 1.3     # stricter

Ratios to a baseline measured by turns in one process, not seconds, so that another load or clock matters little;
what seems slower is measured again before it is said. Exit code 1 with a sentence on each, 2 if nothing is committed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from results import FOLDER, machine_name, read
from timing import SQUARE, Case, measure, peaks

SECTIONS = ("vit_step", "vit_inference", "cached_prefix", "sam")
GUARDED = ("ours", "frozen", "recomputed", "cached", "late")  # forms of the package; the others are its baselines
HEAVIER = 1.25  # peak memory hardly varies


def slower(section: str, name: str, case: Case, old: Mapping[str, Any], margin: float, rounds: int) -> Iterator[str]:
    """A sentence for each form whose speed against the baseline was more than `margin` times the present one."""
    names = [key for key in case.variants if key in old["variants"]]
    new = measure(case, names, rounds, SQUARE[True])
    for key in names:
        was, now = _speed(old, key), _speed(new, key)
        if key.startswith(GUARDED) and now * margin < was:
            yield (
                f"{section}, {name}: {case.variants[key].label} was {was:.2f} times as fast as "
                f"{case.variants[case.base].label}, now {now:.2f} times; allowed is {was / margin:.2f} or more"
            )


def heavier(section: str, name: str, case: Case, old: Mapping[str, Any]) -> Iterator[str]:
    script = str(Path(__file__).with_name(f"{section}.py"))
    for key in case.variants:
        was = old["variants"].get(key, {}).get("peak_mib")
        if not key.startswith(GUARDED) or was is None:
            continue
        now = peaks(script, name, key, quick=True)["peak_mib"]
        if now > HEAVIER * was + 8:  # MiB; what the libraries take varies
            yield f"{section}, {name}: {case.variants[key].label} took {was:.0f} MiB, now {now:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machine", default=machine_name(), help="whose committed JSON")
    parser.add_argument("--margin", type=float, default=1.6, help="how many times slower is still let pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="compare peak memory too, a process for each form")
    args = parser.parse_args()
    sections = read(args.machine)["sections"]
    committed = {section: sections[f"{section} quick"] for section in SECTIONS if f"{section} quick" in sections}
    if not committed:
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.json"))) or "none"
        print(f"{args.machine}: no quick ratios are committed; run `make bench`, or choose --machine of: {known}")
        sys.exit(2)
    found: list[str] = []
    for section, olds in committed.items():
        cases = importlib.import_module(section).cases(True)
        for name, case in cases.items():
            if name not in olds:
                continue
            suspects = list(slower(section, name, case, olds[name], args.margin, args.rounds))
            if suspects:
                suspects = list(slower(section, name, case, olds[name], args.margin, 2 * args.rounds))
            found += suspects
            if args.memory:
                found += heavier(section, name, case, olds[name])
            print(f"{section}, {name}: {'slower' if suspects else 'as before'}", flush=True)
    print("\n".join(found))
    sys.exit(1 if found else 0)


def _speed(case: Mapping[str, Any], name: str) -> float:
    rows = case["variants"]
    return rows[case["base"]]["min"] / rows[name]["min"]


if __name__ == "__main__":
    main()

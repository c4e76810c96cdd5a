"""What few examples are enough for: the same budget for prompts and for the head alone, from 4 examples to all.

    python benchmarks/shots.py run ../shared/data/kvasir_seg runs/shots/kvasir_seg --weights FILE --size 224 --batch 4
    python benchmarks/shots.py report runs/shots/* --to docs/shots.png

Of a classification `shots` are examples of each class. Every training takes `--steps` steps of `--batch` images with a
ViT-S/14 (`data_scripts/prepare_vit_small_focus.py`); the seed draws the examples too. The test split is scored once per
training. `run` skips what is finished and what another process has begun.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from comparison import case_dice, interval, run

SHOTS = (4, 8, 16, 32, 0)  # 0: all
ARMS: dict[str, dict[str, Any]] = {
    "deep": {"prompts": {"method": "deep", "count": 10}},
    "head": {"prompts": {"method": "none"}},
}
NAMES = {"deep": "10 deep prompts + head", "head": "head alone"}
COLOURS = {"deep": "#0072b2", "head": "#d55e00"}
EPOCH = 20  # steps, since few images of a classification are soon all seen; validated twice


def settings(arm: str, shots: int, weights: str, size: int, batch: int, steps: int) -> dict[str, Any]:
    """Everything but the data and the seed."""
    return {
        "backbone.name": "vit_small_patch14_dinov2",
        "backbone.weights": weights,
        "plan.image_size": size,
        "data.shots": shots or None,
        "train.batch_size": batch,
        "train.epochs": steps // EPOCH,
        "train.max_steps": EPOCH,
        "train.validate_every": max(1, steps // EPOCH // 2),
        "train.augment": "light",
    } | ARMS[arm]


def scores(folder: Path) -> dict[str, float]:
    """Case -> Dice, or of a classification 1 where the answer is right and 0 where not."""
    summary = json.loads((folder / "test" / "summary.json").read_text())
    if "metric_per_case" in summary:
        return case_dice(folder)
    with open(folder / "test" / "cases.csv", newline="") as file:
        return {row["name"]: float(row["correct"]) for row in csv.DictReader(file)}


def found(out: Path) -> dict[tuple[str, int], list[dict[str, float]]]:
    """(arm, shots) -> the scores of each seed."""
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for summary in sorted(out.glob("*/test/summary.json")):
        arm, shots, _ = summary.parent.parent.name.split("-")
        runs.setdefault((arm, int(shots)), []).append(scores(summary.parent.parent))
    return runs


def over_seeds(seeds: list[dict[str, float]]) -> np.ndarray:
    """(cases,): the mean of each case over the seeds."""
    return np.array([[seed[name] for name in sorted(seeds[0])] for seed in seeds]).mean(0)


def table(out: Path) -> str:
    runs = found(out)
    lines = [f"| {out.name}: examples | {NAMES['deep']} | {NAMES['head']} | difference |", "|---|---|---|---|"]
    for shots in SHOTS:
        if not all((arm, shots) in runs for arm in ARMS):
            continue
        means = {arm: over_seeds(runs[arm, shots]) for arm in ARMS}
        cells = []
        for arm, mean in means.items():
            each = ", ".join(f"{np.mean(list(seed.values())):.3f}" for seed in runs[arm, shots])
            cells.append(f"{each}: **{mean.mean():.3f}**")
        lines.append(f"| {shots or 'all'} | {' | '.join(cells)} | {interval(means['deep'] - means['head'])} |")
    return "\n".join(lines)


def draw(outs: list[Path], path: Path) -> None:
    """A panel for each data set: the mean over seeds, each seed as a dot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(outs), 3.1), layout="constrained")
    for axis, out in zip(figure.subplots(1, len(outs), squeeze=False)[0], outs, strict=True):
        runs = found(out)
        for arm, colour in COLOURS.items():
            places = [k for k, shots in enumerate(SHOTS) if (arm, shots) in runs]
            means = [[np.mean(list(seed.values())) for seed in runs[arm, SHOTS[k]]] for k in places]
            axis.plot(places, [np.mean(each) for each in means], "-", color=colour, lw=2, label=NAMES[arm])
            for k, each in zip(places, means, strict=True):
                axis.plot([k] * len(each), each, "o", color=colour, ms=4, alpha=0.7)
        axis.set_xticks(range(len(SHOTS)), [str(shots or "all") for shots in SHOTS])
        summary = json.loads(next(out.glob("*/test/summary.json")).read_text())
        masks = "metric_per_case" in summary
        axis.set_xlabel("training cases" if masks else "training images of each class")
        axis.set_ylabel("test Dice" if masks else "test accuracy")
        axis.set_title(out.name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", lw=0.6)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("data", type=Path)
    runner.add_argument("out", type=Path)
    runner.add_argument("--weights", required=True)
    for name, value in {"size": 112, "batch": 32, "steps": 200, "seeds": 3}.items():
        runner.add_argument(f"--{name}", type=int, default=value)
    reporter = commands.add_parser("report")
    reporter.add_argument("outs", type=Path, nargs="+")
    reporter.add_argument("--to", type=Path)
    args = parser.parse_args()
    if args.command == "report":
        print("\n\n".join(table(out) for out in args.outs))
        if args.to:
            draw(args.outs, args.to)
        return
    each = {
        f"{arm}-{shots}": settings(arm, shots, args.weights, args.size, args.batch, args.steps)
        for shots in SHOTS
        for arm in ARMS
    }
    run(args.data, args.out, each, args.seeds, {})


if __name__ == "__main__":
    main()

"""Prompts beside their controls on hippocampus3d: same data, same budget, several seeds, the test split scored once.

    python benchmarks/hippocampus_controls.py run ../shared/data/hippocampus3d runs/controls --seeds 3
    python benchmarks/hippocampus_controls.py report runs/controls

`run` skips what is finished and what another process has begun, so that several processes may share the work (one per
core: set OMP_NUM_THREADS=1). `report` prints the table of docs/results.md: the mean over labels of the Dice per case,
with 95 % bootstrap intervals over cases (a case's seeds averaged), and each method's paired difference to head only.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np

METHODS: dict[str, dict[str, object]] = {
    "random": {"prompts": {"method": "deep"}, "backbone.weights": "random"},
    "deep": {"prompts": {"method": "deep"}},
    "head": {"prompts": {"method": "none"}},
    "shallow": {"prompts": {"method": "shallow"}},
    "full": {"prompts": {"method": "none"}, "tuning": "full"},
}
NAMES = {
    "deep": "VPT-deep, 10 prompts in 8 blocks",
    "shallow": "VPT-shallow, 50 prompts",
    "head": "head only (no prompts)",
    "full": "full fine-tuning",
    "random": "VPT-deep on random weights",
}


def few(data: Path, out: Path, shots: int) -> Path:
    """The data set with `shots` training cases, drawn with seed 0: links to its folders, a split.json of its own."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("imagesTr", "labelsTr", "dataset.json"):
        if not (folder / name).exists():
            (folder / name).symlink_to((data / name).resolve())
    split = json.loads((data / "split.json").read_text())
    random.Random(0).shuffle(split["train"])
    (folder / "split.json").write_text(json.dumps(split | {"train": sorted(split["train"][:shots])}))
    return folder


def run(data: Path, out: Path, seeds: int, epochs: int, steps: int, only: list[str]) -> None:
    from vpt.engine.run import train
    from vpt.runs import evaluate_run

    for seed in range(seeds):
        for method in only:
            folder = out / f"{method}-{seed}"
            if folder.exists():
                continue
            budget = {"train.epochs": epochs, "train.max_steps": steps, "train.workers": 0, "seed": seed}
            train(data, folder, overrides=METHODS[method] | budget)
            scores, masks = evaluate_run(folder)
            scores.save(masks)


def case_dice(run: Path) -> dict[str, float]:
    """Case -> Dice averaged over its labels, from RUN/test/summary.json."""
    cases = json.loads((run / "test" / "summary.json").read_text())["metric_per_case"]
    return {
        Path(case["reference_file"]).name: float(np.mean([label["Dice"] for label in case["metrics"].values()]))
        for case in cases
    }


def interval(values: np.ndarray) -> str:
    """Mean and 95 % percentile bootstrap over cases."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(10_000, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{values.mean():.4f} ({low:.4f} to {high:.4f})"


def report(out: Path) -> None:
    from vpt.artifact import read_artifact

    scores = {}
    for method in NAMES:
        runs = [folder for folder in sorted(out.glob(f"{method}-*")) if (folder / "test" / "summary.json").exists()]
        if runs:
            scores[method] = (runs, [case_dice(folder) for folder in runs])
    print(
        "| method | trained parameters | artifact, MB | Dice per seed | Dice, mean (95 % interval) | minus head only |"
    )
    print("|---|---|---|---|---|---|")
    base = scores.get("head")
    for method, (runs, dice) in scores.items():
        names = sorted(dice[0])
        mean = np.array([np.mean([seed[name] for seed in dice]) for name in names])
        less = "-"
        if base is not None and method != "head":
            head = np.array([np.mean([seed[name] for seed in base[1]]) for name in names])
            less = interval(mean - head)
        artifact = read_artifact(runs[0])
        print(
            f"| {NAMES[method]} | {artifact.counts['trained']:,} | {artifact.path.stat().st_size / 1e6:.2f} | "
            f"{', '.join(f'{np.mean(list(seed.values())):.4f}' for seed in dice)} | {interval(mean)} | {less} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("data", type=Path)
    runner.add_argument("out", type=Path)
    runner.add_argument("--seeds", type=int, default=3)
    runner.add_argument("--epochs", type=int, default=8)
    runner.add_argument("--steps", type=int, default=100)
    runner.add_argument("--shots", type=int, help="train on so many cases only")
    runner.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    reporter = commands.add_parser("report")
    reporter.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.command == "run":
        data = args.data if args.shots is None else few(args.data, args.out, args.shots)
        run(data, args.out, args.seeds, args.epochs, args.steps, args.only)
    else:
        report(args.out)


if __name__ == "__main__":
    main()

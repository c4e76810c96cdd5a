"""What the comparisons of methods share: runs that several processes may divide among them, and their table."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def run(data: Path, out: Path, methods: Mapping[str, Mapping[str, Any]], seeds: int, budget: Mapping[str, Any]) -> None:
    """Train and test every method with every seed into OUT/METHOD-SEED; what is there already is left alone."""
    from vpt.engine.run import train
    from vpt.use.runs import evaluate_run

    for seed in range(seeds):
        for method, settings in methods.items():
            folder = out / f"{method}-{seed}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            train(data, folder, overrides={**budget, **settings, "train.workers": 0, "seed": seed})
            scores, masks = evaluate_run(folder)
            scores.save(masks)


def report(out: Path, names: Mapping[str, str], base: str) -> None:
    """A table of docs/results: Dice per case with intervals over cases, and the paired difference to `base`."""
    from vpt.artifact import read_artifact

    found = {method: _finished(out, method) for method in names}
    dice = {method: [case_dice(folder) for folder in runs] for method, runs in found.items() if runs}
    print(
        "| method | trained parameters | of them prompts | artifact, MB | training, s (fastest seed) | Dice per seed "
        f"| Dice, mean (95 % interval) | minus {names[base]} |\n|---|---|---|---|---|---|---|---|"
    )
    for method, seeds in dice.items():
        mean = _over_seeds(seeds)
        less = "-" if method == base or base not in dice else interval(mean - _over_seeds(dice[base]))
        artifact = read_artifact(found[method][0])
        each = ", ".join(f"{np.mean(list(seed.values())):.4f}" for seed in seeds)
        print(
            f"| {names[method]} | {artifact.counts['trained']:,} | {artifact.counts['prompts']:,} | "
            f"{artifact.path.stat().st_size / 1e6:.2f} | {min(_seconds(run) for run in found[method]):.0f} | "
            f"{each} | {interval(mean)} | {less} |"
        )
    for method, runs in found.items():
        wrong = [false_positives(run) for run in runs]
        if wrong and wrong[0][1]:
            print(
                f"{names[method]}: {', '.join(f'{some} of {of}' for some, of in wrong)} empty cases have a prediction"
            )


def case_dice(run: Path) -> dict[str, float]:
    """Case -> Dice averaged over the labels that its reference has, from RUN/test/summary.json; other cases: none."""
    found = {}
    for case in _cases(run):
        present = [label["Dice"] for label in case["metrics"].values() if label["n_ref"]]
        if present:
            found[Path(case["reference_file"]).name] = float(np.mean(present))
    return found


def false_positives(run: Path) -> tuple[int, int]:
    """Cases whose reference is empty: how many have something predicted, and how many there are."""
    empty = [case for case in _cases(run) if not any(label["n_ref"] for label in case["metrics"].values())]
    return sum(any(label["n_pred"] for label in case["metrics"].values()) for case in empty), len(empty)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % percentile bootstrap over cases."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(10_000, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{values.mean():.4f} ({low:.4f} to {high:.4f})"


def arguments(description: str, methods: Mapping[str, Any], **defaults: float | str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("data", type=Path)
    runner.add_argument("out", type=Path)
    runner.add_argument("--seeds", type=int, default=3)
    for name, value in defaults.items():
        runner.add_argument(f"--{name}", type=str if value is None else type(value), default=value)
    runner.add_argument("--only", nargs="+", choices=methods, default=list(methods))
    commands.add_parser("report").add_argument("out", type=Path)
    return parser.parse_args()


def _cases(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "test" / "summary.json").read_text())["metric_per_case"]


def _finished(out: Path, method: str) -> list[Path]:
    return [folder for folder in sorted(out.glob(f"{method}-*")) if (folder / "test" / "summary.json").exists()]


def _over_seeds(seeds: list[dict[str, float]]) -> np.ndarray:
    return np.array([np.mean([seed[name] for seed in seeds]) for name in sorted(seeds[0])])


def _seconds(run: Path) -> float:
    with open(run / "metrics.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])

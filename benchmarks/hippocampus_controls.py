"""Prompts beside their controls on hippocampus3d: same data, same budget, several seeds, the test split scored once.

    python benchmarks/hippocampus_controls.py run ../shared/data/hippocampus3d runs/controls --seeds 3
    python benchmarks/hippocampus_controls.py report runs/controls

`run` skips what is finished and what another process has begun, so that several processes may share the work (one per
core: set OMP_NUM_THREADS=1). `report` prints the table of docs/results: the mean over labels of the Dice per case,
with 95 % bootstrap intervals over cases (a case's seeds averaged), and each method's paired difference to head only.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from comparison import arguments, report, run

METHODS: dict[str, dict[str, object]] = {
    "random": {"prompts": {"method": "deep"}, "backbone.weights": "random"},
    "deep": {"prompts": {"method": "deep"}},
    "head": {"prompts": {"method": "none"}},
    "shallow": {"prompts": {"method": "shallow"}},
    "full": {"prompts": {"method": "none"}, "tuning": "full", "optim.backbone_lr": 2e-4},
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


def main() -> None:
    args = arguments(__doc__.splitlines()[0], METHODS, epochs=8, steps=100, shots=0)
    if args.command == "report":
        report(args.out, NAMES, base="head")
        return
    data = few(args.data, args.out, args.shots) if args.shots else args.data
    budget = {"train.epochs": args.epochs, "train.max_steps": args.steps}
    run(data, args.out, {method: METHODS[method] for method in args.only}, args.seeds, budget)


if __name__ == "__main__":
    main()

"""What each way of adapting LiteMedSAM costs: trained parameters, artifact, seconds and memory of a step.

    python benchmarks/cost.py                                    # where the extra lite-medsam is installed
    python benchmarks/cost.py --weights FILE --batch 8 --steps 10

Random images of 256 px and the precision that the device is given. Every method runs in a process of its own; a step
is forward, loss, backward and update, without reading images. On a CPU the memory is the process's, with the encoder;
every method runs a second time with an allocator that gives freed buffers back, which training does not let it do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from encoder_controls import METHODS, NAMES, settings

from vpt.artifact import save_artifact
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Plan, Window
from vpt.engine.optim import build_optimizer
from vpt.machine.device import choose_device
from vpt.machine.memory import keeping_buffers, peak_memory, reset_peak
from vpt.machine.precision import autocast, choose_precision, prepare_frozen
from vpt.tasks.segmentation import SliceModel, dice_ce

PX, LABELS = 256, {0: "background", 1: "found"}


def measure(method: str, weights: str | None, batch: int, steps: int, device: str, keep: bool) -> dict[str, Any]:
    """Seconds of the median step after two, bytes at its peak, parameters that train, bytes of the artifact."""
    chosen = settings(method, 1, 0, weights, 5e-4)
    config = load_config(".", {**chosen, "task": "segmentation"}).resolved("segmentation")
    channel: Any = {"channels": ("grey",), "intensity": (Window(low=0, high=255),)}
    plan = Plan(plane="axial", pixel_mm=None, image_size=PX, neighbours=False, **channel)
    target = choose_device(device)
    precision = choose_precision(config.precision, target)
    model = build_model(config, plan, len(LABELS)).to(target)
    prepare_frozen(model.backbone, precision)
    forward, loss = SliceModel(model).to(target), dice_ce()
    rates = config.optim.model_dump(include={"prompt_lr", "backbone_lr", "weight_decay"})
    optimizer = build_optimizer(model, lr=config.lr, **rates)
    data = {"images": torch.rand(batch, 3, PX, PX), "truth": (torch.rand(batch, PX, PX) > 0.5).long()}
    data = {name: part.to(target) for name, part in data.items()}
    reset_peak(target)
    seconds, work = [], []
    with keeping_buffers(target) if keep else nullcontext():
        for _ in range(steps + 2):
            started, worked = time.perf_counter(), time.process_time()
            with autocast(precision, target):
                error = loss(forward(data), data)
            error.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            float(error.detach())  # waits for the device
            seconds.append(time.perf_counter() - started)
            work.append(time.process_time() - worked)
        peak = peak_memory(target)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_artifact(file, model.cpu(), config=config, plan=plan, labels=LABELS, scores={})
        size = file.stat().st_size
    counts = model.count_parameters()
    return {
        "method": method,
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else str(target),
        "precision": precision,
        "batch": batch,
        "seconds": statistics.median(seconds[2:]),
        "work": statistics.median(work[2:]),
        "peak": peak,
        "trained": counts["trained"],
        "prompts": counts["prompts"],
        "artifact": size,
    }


def table(rows: list[dict[str, Any]], given_back: list[dict[str, Any]]) -> str:
    more = ["CPU s", "step, buffers given back, s", "its memory, GB"] if given_back else []
    heads = ["method", "trained parameters", "artifact, MB", "step, s", "memory, GB", *more]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, other in zip_longest(rows, given_back):
        cells = [NAMES[row["method"]], f"{row['trained']:,}", f"{row['artifact'] / 1e6:.2f}", *_cost(row)]
        if other:
            cells += [f"{row['work']:.2f}", *_cost(other)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(row: dict[str, Any]) -> list[str]:
    return [f"{row['seconds']:.3f}", f"{(row['peak'] or 0) / 1e9:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--given-back", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.weights, args.batch, args.steps, args.device, not args.given_back)))
        return
    rows, given_back = [], []
    for method in args.only:
        rows.append(_apart("--one", method))
        if rows[-1]["device"] == "cpu":
            given_back.append(_apart("--one", method, "--given-back"))
    print(f"{rows[0]['device']}, {rows[0]['precision']}, {args.batch} images of {PX} px a step")
    print(table(rows, given_back))


def _apart(*words: str) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    found = subprocess.run([sys.executable, *sys.argv, *words], capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(found.stderr)
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()

"""Prompts in a SAM encoder beside their controls: same data, same budget, several seeds, the test split scored once.

    python benchmarks/sam_controls.py run ../shared/data/kvasir_seg runs/sam/kvasir_seg --seeds 3
    python benchmarks/sam_controls.py report runs/sam/kvasir_seg

With the embedded `sam_micro` at --size pixels. `run` skips what is finished and what another process has begun, so that
several processes may share the work (one per core: set OMP_NUM_THREADS=1).
"""

from __future__ import annotations

from comparison import arguments, report, run

DECODER = {"head": {"kind": "sam_decoder"}, "optim.lr": 2e-3}  # from random values
METHODS: dict[str, dict[str, object]] = {
    "deep": {"prompts": {"method": "deep", "count": 10}, **DECODER},
    "shallow": {"prompts": {"method": "shallow", "count": 10}, **DECODER},
    "additive": {"prompts": {"method": "additive", "form": "grid"}, **DECODER},
    "decoder": {"prompts": {"method": "none"}, **DECODER},
    "mask": {"prompts": {"method": "none"}, "head": {"kind": "mask"}},
}
NAMES = {
    "deep": "deep prompts (10 in 8 blocks) + decoder",
    "shallow": "shallow prompts (10) + decoder",
    "additive": "additive prompts (grid) + decoder",
    "decoder": "decoder only",
    "mask": "MaskHead only",
}


def main() -> None:
    args = arguments(__doc__.splitlines()[0], METHODS, epochs=3, steps=100, size=128)
    if args.command == "report":
        report(args.out, NAMES, base="decoder")
        return
    budget = {
        "backbone.name": "sam_micro",
        "plan.image_size": args.size,
        "train.batch_size": 8,
        "train.epochs": args.epochs,
        "train.max_steps": args.steps,
        "train.validate_every": args.epochs,
    }
    run(args.data, args.out, {method: METHODS[method] for method in args.only}, args.seeds, budget)


if __name__ == "__main__":
    main()

"""Prompts in LiteMedSAM beside their controls: same data, same budget, several seeds, the test split scored once.

    python benchmarks/encoder_controls.py run ../shared/data/kvasir_seg runs/lite/kvasir_seg --weights FILE --shots 16
    python benchmarks/encoder_controls.py report runs/lite/kvasir_seg

`--shots 0` takes all training cases. `run` skips what is finished and what another process has begun, so that several
processes may share the work. `--weights` is left out where the extra `lite-medsam` is installed.
"""

from __future__ import annotations

from typing import Any

from comparison import arguments, report, run

DECODER = {"head": {"kind": "sam_decoder"}}
MASK = {"head": {"kind": "mask"}}
NONE = {"prompts": {"method": "none"}}
EVERYWHERE = {"prompts": {"method": "deep", "count": 16}}
LAST = {"prompts": {"method": "deep", "count": 16, "blocks": "last:8"}}  # the attention at 1/4 of the image's side
FULL = {"tuning": {"method": "full"}, "optim.backbone_lr": 2e-4}
METHODS: dict[str, dict[str, Any]] = {
    "decoder": NONE | DECODER,
    "deep": EVERYWHERE | DECODER,
    "deep_last": LAST | DECODER,
    "additive": {"prompts": {"method": "additive", "form": "grid"}} | DECODER,
    "lora": NONE | DECODER | {"tuning": {"method": "lora"}},
    "full": NONE | DECODER | FULL,
    "mask": NONE | MASK,
    "deep_mask": EVERYWHERE | MASK,
    "unet": NONE | {"backbone.name": "none", "backbone.weights": None, "head": {"kind": "unet"}, "optim.lr": 1e-3},
}
NAMES = {
    "decoder": "decoder only",
    "deep": "deep prompts (16 in 10 blocks) + decoder",
    "deep_last": "deep prompts (16 in the last 8) + decoder",
    "additive": "additive prompts (grid) + decoder",
    "lora": "LoRA + decoder",
    "full": "full fine-tuning + decoder",
    "mask": "MaskHead only",
    "deep_mask": "deep prompts (16 in 10 blocks) + MaskHead",
    "unet": "U-Net from scratch",
}


def settings(method: str, epochs: int, shots: int, weights: str | None, rate: float, batch: int = 8) -> dict[str, Any]:
    """Everything but the data and the seed: `epochs` of 100 steps of `batch` slices."""
    return {
        "backbone.name": "lite_medsam",
        "backbone.weights": weights,
        "plan.image_size": 256,
        "data.shots": shots or None,
        "optim.lr": rate,
        "train.batch_size": batch,
        "train.epochs": epochs,
        "train.max_steps": 100,
        "train.validate_every": max(1, epochs // 2),
    } | METHODS[method]


def main() -> None:
    args = arguments(__doc__.splitlines()[0], METHODS, weights=None, rate=5e-4, epochs=2, batch=4, shots=16)
    if args.command == "report":
        report(args.out, NAMES, base="decoder")
        return
    each = {name: settings(name, args.epochs, args.shots, args.weights, args.rate, args.batch) for name in args.only}
    run(args.data, args.out, each, args.seeds, {})


if __name__ == "__main__":
    main()

"""Kinds of prompts, their rate and their start, beside the head alone and LoRA: a ViT-S/14 at 224 px, 200 steps of 8.

    python benchmarks/prompt_kinds.py run ../shared/data/kvasir_seg runs/kinds --weights FILE --seeds 2 --only head deep
    python benchmarks/prompt_kinds.py report runs/kinds

`run` skips what is there, and scores the test split of every training once; validation is in each run's `metrics.csv`.
`prefix` is no method of this package: its prompts are a block's keys and values as they are, through neither the
encoder's norm nor its projection (Li and Liang, ACL 2021, section 4).
"""

from __future__ import annotations

from typing import Any, Literal

from comparison import arguments, report, run
from pydantic import Field
from torch import nn

import vpt
from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import KeysValues
from vpt.prompts.base import MOST, Prompts, PromptSettings
from vpt.prompts.pools.prefix import prefix_blocks
from vpt.prompts.starts.random import uniform_prompts


class PrefixConfig(PromptSettings):
    method: Literal["prefix"] = "prefix"
    count: int = Field(10, ge=1, le=MOST)

    def build(self, spec: BackboneSpec) -> PrefixPrompts:
        return PrefixPrompts(spec, count=self.count)


class PrefixPrompts(Prompts):
    """`count` learned keys and values for every block. Parameters: 2 * blocks * count * C."""

    constant = True

    def __init__(self, spec: BackboneSpec, *, count: int = 10):
        super().__init__()
        blocks = prefix_blocks("all", spec, "prefix")
        self.count = count
        self.rows = {block: row for row, block in enumerate(blocks)}
        self.heads = [spec.blocks[block].heads for block in blocks]
        width = spec.blocks[blocks[0]].width
        self.keys = nn.Parameter(uniform_prompts(len(blocks), count, width, spec.first_patch))
        self.values = nn.Parameter(uniform_prompts(len(blocks), count, width, spec.first_patch))

    def first(self, depth: int) -> int:
        return min(self.rows)

    def context(self, i: int, batch: int) -> KeysValues | None:
        if (row := self.rows.get(i)) is None:
            return None
        shape = (self.heads[row], -1)
        keys, values = (part[row].unflatten(-1, shape).transpose(0, 1)[None] for part in (self.keys, self.values))
        return KeysValues(keys, values)


def prompted(method: str, **settings: Any) -> dict[str, Any]:
    return {"prompts": {"method": method, **settings}}


FAST = {"optim.prompt_lr": 2e-2}  # four times the default
SLOW = {"optim.prompt_lr": 1.5e-3}  # 0.3 of it
METHODS: dict[str, dict[str, Any]] = {
    "head": prompted("none"),
    "deep": prompted("deep"),
    "deep_fast": prompted("deep") | FAST,
    "deep_slow": prompted("deep") | SLOW,
    "vipamin": prompted("deep", init="vipamin"),
    "low_rank": prompted("low_rank"),
    "fourier": prompted("fourier"),
    "gated": prompted("gated"),
    "shallow": prompted("shallow"),
    "conditioned": prompted("conditioned"),
    "cross": prompted("cross"),
    "prefix": prompted("prefix"),
    "prefix_fast": prompted("prefix") | FAST,
    "lora": prompted("none") | {"tuning": {"method": "lora"}},
}
NAMES = {
    "head": "head alone",
    "deep": "10 deep prompts",
    "deep_fast": "the same, four times the rate (2e-2)",
    "deep_slow": "the same, 0.3 of the rate (1.5e-3)",
    "vipamin": "10 deep prompts, VIPAMIN's start",
    "low_rank": "50 low-rank prompts of rank 8 (BPT)",
    "fourier": "10 Fourier prompts (VFPT)",
    "gated": "50 gated prompts (GaPT)",
    "shallow": "50 shallow prompts",
    "conditioned": "10 conditioned prompts (VAPT)",
    "cross": "20 cross-attention prompts (CVPT)",
    "prefix": "10 learned keys and values",
    "prefix_fast": "the same, four times the rate (2e-2)",
    "lora": "LoRA, rank 8",
}


def settings(weights: str) -> dict[str, Any]:
    """Everything but the data, the method and the seed."""
    return {
        "backbone.name": "vit_small_patch14_dinov2",
        "backbone.weights": weights,
        "head.kind": "mask",
        "plan.image_size": 224,
        "precision": "bf16-mixed",
        "train.batch_size": 8,
        "train.epochs": 2,
        "train.max_steps": 100,
        "train.mirror": "both",
    }


def main() -> None:
    vpt.register_prompts(PrefixConfig)
    args = arguments(__doc__.splitlines()[0], METHODS, weights=None)
    if args.command == "report":
        for base in ("head", "deep"):
            report(args.out, NAMES, base)
        return
    run(args.data, args.out, {name: METHODS[name] for name in args.only}, args.seeds, settings(args.weights))


if __name__ == "__main__":
    main()

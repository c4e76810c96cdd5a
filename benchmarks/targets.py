"""What was set out to be reached, and where in the measured numbers it is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from growing import exponent, memory_exponent
from tables import over_floor

Sections = Mapping[str, Any]
FIRST_PASS = "MONAI's chain / the first pass here"  # as volumes.py calls it


@dataclass(frozen=True)
class Target:
    """`reached` raises KeyError where it was not measured.

    bound: None where only the number is to be shown; at_most: it is from above, else from below.
    """

    what: str
    bound: float | None
    reached: Callable[[Sections], float]
    at_most: bool = False
    unit: str = "x"

    def met(self, value: float) -> bool:
        if self.bound is None:
            return False
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Speed:
    """Ratio of the minima over the rounds."""

    section: str
    case: str
    slow: str
    fast: str

    def __call__(self, found: Sections) -> float:
        slow, fast = (_row(found, self.section, self.case, name)["min"] for name in (self.slow, self.fast))
        return slow / fast

    def at_floor(self, found: Sections) -> float:
        """What it would be if the fast form took no longer than its own products at the machine's rate."""
        return self(found) * floor(self.section, self.case, self.fast)(found)


def share(section: str, case: str, part: str, whole: str, key: str = "min") -> Callable[[Sections], float]:
    return lambda found: _row(found, section, case, part)[key] / _row(found, section, case, whole)[key]


def memory(section: str, case: str, part: str, whole: str) -> Callable[[Sections], float]:
    return share(section, case, part, whole, "peak_mib")


def filled(section: str, case: str, part: str, whole: str) -> Callable[[Sections], float]:
    """Of the peak without the allocator's holes."""
    return share(section, case, part, whole, "filled_mib")


def floor(section: str, case: str, name: str) -> Callable[[Sections], float]:
    def reached(found: Sections) -> float:
        value = over_floor(found[section][case], _row(found, section, case, name))
        if value is None:
            raise KeyError(name)
        return value

    return reached


def number(section: str, case: str, key: str) -> Callable[[Sections], float]:
    return lambda found: found[section][case][key]


def check(section: str, case: str, *names: str) -> Callable[[Sections], float]:
    """The worst of them."""
    worst = min if "cosine" in names[0] else max
    return lambda found: worst(found[section][case]["checks"][name] for name in names)


def _row(found: Sections, section: str, case: str, name: str) -> Any:
    return found[section][case]["variants"][name]


STEP, MENDED = ("vit_step", "vit_b"), ("vit_step mended", "vit_b")


def mended(fast: str) -> Callable[[Sections], float]:
    """Against the literal form whose frozen layers are prepared as the package's, where that was measured."""

    def reached(found: Sections) -> float:
        measured = found[MENDED[0]][MENDED[1]]["variants"]
        return Speed(*MENDED, "literal_same" if "literal_same" in measured else "literal", fast)(found)

    return reached


LINEAR = 1.1  # the exponent k of y ~ x^k that still counts as linear
LATE, SAM = ("cached_prefix", "vit"), "sam"
LITE, LITE_STEP = ("lite_medsam", "forward"), ("lite_medsam", "step")
OF_LITE = "LiteMedSAM step, the whole encoder / stored tokens, prompts from stage"
THREE = (("swin", "Swin-T"), ("hiera", "Hiera-T"), ("dinov3", "DINOv3-S"))
HOLES = "the same without the allocator's holes, in both"
OF_STEP = "VPT-deep step, ViT-B/16 224 px, batch 8, P = 50"
TARGETS = (
    Target(f"{OF_STEP}: literal form / here, float32", 2.5, Speed(*STEP, "literal", "ours")),
    Target("the same, here in bfloat16", 5.5, Speed(*STEP, "literal", "ours_bf16")),
    Target("the same, allocator and float32 products mended for both, float32", 1.4, mended("ours")),
    Target("the same, mended for both, here in bfloat16", 2.6, mended("ours_bf16")),
    Target("its counted FLOPs against the literal form", 0.73, share(*STEP, "ours", "literal", "gflop"), True, ""),
    Target("that step over the floor, bfloat16", 1.25, floor(*STEP, "ours_bf16"), True),
    Target("that step over the floor, float32", 1.25, floor(*STEP, "ours"), True),
    Target("ViT-Ti/16, batch 16, over the floor, bfloat16", 1.7, floor("vit_step", "vit_ti", "ours_bf16"), True),
    Target("ViT-Ti/16, batch 16, over the floor, float32", 1.7, floor("vit_step", "vit_ti", "ours"), True),
    Target(
        "forward with prompts / without, P = 50, all rows, float32",
        1.04,
        share("vit_inference", "batch", "frozen", "unprompted"),
        True,
    ),
    Target("the same, bfloat16", 1.04, share("vit_inference", "batch", "frozen_bf16", "unprompted_bf16"), True),
    Target(
        "peak memory of the ViT-B step against the literal form", 0.45, memory(*STEP, "ours_bf16", "literal"), True, ""
    ),
    Target(HOLES, 0.45, filled(*STEP, "ours_bf16", "literal"), True, ""),
    Target("with checkpointing", 0.15, memory(*STEP, "ours_checkpointed_bf16", "literal"), True, ""),
    Target(HOLES, 0.15, filled(*STEP, "ours_checkpointed_bf16", "literal"), True, ""),
    Target("time with checkpointing / without", 1.25, share(*STEP, "ours_checkpointed_bf16", "ours_bf16"), True),
    Target(
        "prompts in the last 3 of 12 blocks, cached / literal form everywhere",
        25,
        Speed(*LATE, "literal", "cached3_bf16"),
    ),
    Target("share of that step spent reading", 0.03, share(*LATE, "read3", "cached3_bf16"), True, ""),
    Target(
        "LiteMedSAM forward 256 px, the original in float32 / here in bfloat16",
        3,
        Speed(*LITE, "original", "ours_bf16"),
    ),
    Target("the same, both in float32", None, Speed(*LITE, "original", "ours")),
    Target(f"{OF_LITE} 2 on, bfloat16", 1.25, Speed(*LITE_STEP, "stage_2_bf16", "stage_2_stored_bf16")),
    Target(f"{OF_LITE} 3 on, bfloat16", 2.2, Speed(*LITE_STEP, "stage_3_bf16", "stage_3_stored_bf16")),
    *(
        Target(
            f"{title} forward, deep prompts, over the floor, bfloat16", 1.3, floor("encoders", kind, "ours_bf16"), True
        )
        for kind, title in THREE
    ),
    *(
        Target(f"{title}: those products alone, over the floor", None, floor("encoders", kind, "products_bf16"), True)
        for kind, title in THREE
    ),
    *(
        Target(
            f"{title}, bfloat16: deep prompts / timm's own without",
            None,
            share("encoders", kind, "ours_bf16", "timm_bf16"),
            True,
        )
        for kind, title in THREE
    ),
    Target(
        "SAM ViT-B forward 1024 px, bfloat16 / segment-anything's own",
        7.5,
        Speed(SAM, "forward_1024", "original", "ours_bf16"),
    ),
    Target("the same, float32", 3.5, Speed(SAM, "forward_1024", "original", "ours")),
    Target("its peak memory, bfloat16", 0.07, memory(SAM, "forward_1024", "ours_bf16", "original"), True, ""),
    Target(HOLES, 0.07, filled(SAM, "forward_1024", "ours_bf16", "original"), True, ""),
    Target(
        "SAM ViT-B forward 1024 px, bfloat16, allocator mended for both",
        4,
        Speed("sam mended", "forward_1024", "original", "ours_bf16"),
    ),
    Target("SAM ViT-B deep step 1024 px, bfloat16", 6, Speed(SAM, "step_1024", "original", "ours_bf16")),
    Target("its peak memory", 0.15, memory(SAM, "step_1024", "ours_bf16", "original"), True, ""),
    Target(HOLES, 0.15, filled(SAM, "step_1024", "ours_bf16", "original"), True, ""),
    Target("with checkpointing", 0.15, memory(SAM, "step_1024", "ours_checkpointed_bf16", "original"), True, ""),
    Target(HOLES, 0.15, filled(SAM, "step_1024", "ours_checkpointed_bf16", "original"), True, ""),
    Target(
        "prompts in SAM's last 3 blocks, cached / original everywhere",
        25,
        Speed(SAM, "step_1024", "original", "cached_bf16"),
    ),
    Target("512 x 512 x 100 CT: MONAI's chain / the first pass here", 8, number("volumes", "first_pass", FIRST_PASS)),
    Target("a cached slice of it, ms", 0.5, number("volumes", "first_pass", "a cached slice, 512 px, ms"), True, " ms"),
    Target("exponent of a step's time in the batch", LINEAR, exponent("batch", "ours_bf16"), True, ""),
    Target("exponent of a step's time in the tokens", None, exponent("px", "ours_bf16"), True, ""),
    Target("exponent of a step's time in the blocks", None, exponent("depth", "ours_bf16"), True, ""),
    Target(
        "exponent of a prediction's time in a volume's slices", LINEAR, exponent("slices", "predict_bf16"), True, ""
    ),
    Target("exponent of its memory in a volume's slices", 0.1, memory_exponent("slices", "predict_bf16"), True, ""),
)
GATES = (
    Target(
        "float64 against the plain form: logits and gradient",
        1e-12,
        check(*STEP, "float64 logits", "float64 gradient"),
        True,
        "",
    ),
    Target("float32: logits and gradient", 5e-6, check(*STEP, "float32 logits", "float32 gradient"), True, ""),
    Target("bfloat16: cosine of the gradient", 0.9998, check(*STEP, "bfloat16 gradient cosine"), unit=""),
    Target("SAM, float32 features, 1024 px", 5e-6, check(SAM, "forward_1024", "float32 features"), True, ""),
    Target("SAM, float64 features, 256 px", 1e-12, check(SAM, "forward_256", "float64 features"), True, ""),
    Target("SAM, float32 gradient, 1024 px", 5e-6, check(SAM, "step_1024", "float32 gradient"), True, ""),
    Target(
        "SAM, bfloat16: cosine of the gradient", 0.9998, check(SAM, "step_1024", "bfloat16 gradient cosine"), unit=""
    ),
    Target(
        "last 3 blocks, cached, bfloat16: cosine of the gradient",
        0.9998,
        check(*LATE, "bfloat16 gradient cosine, last 3"),
        unit="",
    ),
)


def table(targets: tuple[Target, ...], machines: Mapping[str, Sections]) -> str:
    """A row per target, a column per machine; what meets the target is bold."""
    lines = [f"| what | target | {' | '.join(machines)} |", "|---" * (2 + len(machines)) + "|"]
    for target in targets:
        sign = "≤" if target.at_most else "≥"
        bound = "-" if target.bound is None else f"{sign} {target.bound:g}{target.unit}"
        cells = " | ".join(_cell(target, found) for found in machines.values())
        lines.append(f"| {target.what} | {bound} | {cells} |")
    return "\n".join(lines)


def _cell(target: Target, found: Sections) -> str:
    try:
        value = target.reached(found)
    except (KeyError, TypeError):
        return "not measured"
    exact = target.bound is not None and 0.99 < target.bound < 1
    shown = f"{value:.6f}{target.unit}" if exact else f"{value:.3g}{target.unit}"
    if isinstance(target.reached, Speed):
        shown += f" (at the floor {target.reached.at_floor(found):.3g}x)"
    return f"**{shown}**" if target.met(value) else shown

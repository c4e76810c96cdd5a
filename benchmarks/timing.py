"""How everything here is measured: variants by turns in one process, memory in a process each, floors in the same run.

A script names its cases; `main` measures them, prints their tables and merges them into the machine's JSON:

    python benchmarks/vit_step.py              # full sizes
    python benchmarks/vit_step.py --quick      # seconds; what benchmarks/guard.py compares
    python benchmarks/vit_step.py --mended     # the allocator keeps its memory, for every variant
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import torch
import torch.nn.functional as F
from results import MENDED, WITHOUT_HOLES, allocator, commit_of, load_of, machine_name, read, save
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], Any]
CPU = torch.device("cpu")
DTYPES = {"32-true": "float32", "bf16-mixed": "bfloat16"}

SQUARE = {False: 2048, True: 512}  # side of the square product whose rate is the floor's, by `quick`


@dataclass(frozen=True)
class Variant:
    """One form of the same work.

    label: in the tables; build: makes what is run; precision: of its products, whose matmul rate its floor has;
    same_flops: the variant that does the same products in float32, to count there; memory: whether to measure its peak.
    """

    label: str
    build: Callable[[], Run]
    precision: str = "32-true"
    same_flops: str | None = None
    memory: bool = True


@dataclass(frozen=True)
class Case:
    """Variants of one size.

    base: the variant to which the others are compared; layer: rows and width of a block's linear maps, for the rate at
    their shapes; checks: numbers found outside the rounds, such as how far results are apart; mended: variants to
    measure with the allocator mended, none if the case is left out there; settings: for the reader.
    """

    title: str
    variants: Mapping[str, Variant]
    base: str
    layer: tuple[int, int]
    checks: Callable[[], dict[str, float]] | None = None
    mended: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def by_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run in every round, after one round that does not count; each round starts with another."""
    names, seconds = list(runs), {name: [] for name in runs}
    for run in runs.values():
        run()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def matmuls(rows: int, width: int, square: int) -> dict[str, tuple[Run, int]]:
    """Name -> matrix products and their FLOPs: a large square one, and the linear maps of a block in their shapes."""
    found: dict[str, tuple[Run, int]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found[f"{name} square"] = (_linears(square, [(square, square)], dtype), 2 * square**3)
        maps = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
        found[f"{name} block"] = (_linears(rows, maps, dtype), 2 * rows * 12 * width**2)
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        x, weight = torch.randn(square, square), torch.randn(square, square)
        other = torch.ops.mkldnn._linear_pointwise  # what torch.compile calls; float32 through oneDNN instead of MKL
        found["float32 square oneDNN"] = (lambda: other(x, weight, None, "none", [], ""), 2 * square**3)
    return found


def _linears(rows: int, maps: list[tuple[int, int]], dtype: torch.dtype) -> Run:
    pairs = [(torch.randn(rows, n, dtype=dtype), torch.randn(m, n, dtype=dtype)) for n, m in maps]

    def run() -> None:
        with torch.inference_mode():
            for x, weight in pairs:
                F.linear(x, weight)

    return run


def count_flops(run: Run) -> int:
    """FLOPs of matrix products and convolutions; attention is counted as the products that it is made of."""
    counts = {"_linear_pointwise": _linear_flops, "_convolution_pointwise": _convolution_flops}
    known = {name: count for name, count in counts.items() if hasattr(torch.ops.mkldnn, name)}
    own = {getattr(torch.ops.mkldnn, name): count for name, count in known.items()}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops()


def _linear_flops(x: Sequence[int], weight: Sequence[int], *rest: Any, **more: Any) -> int:
    """Of oneDNN's linear map of shapes (..., n) and (m, n), which torch's counter does not know."""
    return 2 * math.prod(x) * weight[0]


def _convolution_flops(
    x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Sequence[int], **more: Any
) -> int:
    """Of oneDNN's convolution with weights (m, n / groups, ...) that gives (B, m, ...)."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def measure(case: Case, names: Iterable[str], rounds: int, square: int) -> dict[str, Any]:
    """Seconds by turns of the variants and of matrix products, and FLOPs. Peak memory is not in it."""
    load, chosen = load_of(), {name: case.variants[name] for name in names}
    runs = {name: variant.build() for name, variant in chosen.items()}
    products = matmuls(*case.layer, square)
    seconds = by_turns(runs | {f"matmul {name}": run for name, (run, _) in products.items()}, rounds)
    return {
        "title": case.title,
        "base": case.base,
        "settings": dict(case.settings),
        "measured": {
            "date": date.today().isoformat(),
            "commit": commit_of(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "float32 products": torch.get_float32_matmul_precision(),
            "allocator": allocator(),
            "load before": load,
            "rounds": rounds,
        },
        "gflops": {name: flops / min(seconds[f"matmul {name}"]) / 1e9 for name, (_, flops) in products.items()},
        "variants": {
            name: {
                "label": variant.label,
                "dtype": DTYPES[variant.precision],
                "seconds": [round(s, 5) for s in seconds[name]],
                "min": min(seconds[name]),
                "median": statistics.median(seconds[name]),
                "gflop": _gflop(case, name, runs),
            }
            for name, variant in chosen.items()
        },
    }


def _gflop(case: Case, name: str, runs: Mapping[str, Run]) -> float | None:
    """None where the variant that does the same products was not measured."""
    counted = case.variants[name].same_flops or name
    return count_flops(runs[counted]) / 1e9 if counted in runs else None


def peaks(script: str, case: str, variant: str, quick: bool) -> dict[str, float]:
    """MiB above the model and the libraries, of one run in a process of its own: in all, and without glibc's holes."""
    command = [sys.executable, script, "--alone", case, variant, *(["--quick"] if quick else [])]

    def alone(**more: str) -> float:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | more)
        return float(done.stdout.split()[-1])

    return {"peak_mib": alone(), "filled_mib": alone(**WITHOUT_HOLES)}


def _alone(variant: Variant) -> None:
    from vpt.machine.memory import peak_memory, reset_peak

    run = variant.build()
    for dtype in (torch.float32, torch.bfloat16):  # the libraries' own buffers
        x = torch.randn(64, 64, dtype=dtype)
        F.scaled_dot_product_attention(*[F.linear(x, x).view(1, 1, 64, 64)] * 3)
    reset_peak(CPU)
    before = peak_memory(CPU)
    run()
    after = peak_memory(CPU)
    print("nan" if before is None or after is None else (after - before) / 2**20)


def main(section: str, make_cases: Callable[[bool], Mapping[str, Case]]) -> None:
    """The command line of a benchmark: measure its cases, print their tables, save them under `section`."""
    from tables import table_of

    parser = argparse.ArgumentParser(description=str(sys.modules["__main__"].__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, kept apart in the JSON, for guard.py")
    parser.add_argument("--mended", action="store_true", help=f"with {' '.join(f'{k}={v}' for k, v in MENDED.items())}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", help="only these")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure the peak")
    parser.add_argument("--only-memory", action="store_true", help="the peaks again; the saved times stay")
    parser.add_argument("--machine", default=machine_name(), help="name of the JSON in benchmarks/results")
    parser.add_argument("--alone", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    cases = make_cases(args.quick)
    if args.alone:
        _alone(cases[args.alone[0]].variants[args.alone[1]])
        return
    if args.mended and any(os.environ.get(key) != value for key, value in MENDED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MENDED)
    kind = f"{section}{' mended' if args.mended else ''}{' quick' if args.quick else ''}"
    for name in args.cases or cases:
        case = cases[name]
        chosen = case.mended if args.mended else tuple(case.variants)
        if not chosen:
            continue
        if args.only_memory:
            found = read(args.machine)["sections"][kind][name]
        else:
            found = measure(case, chosen, args.rounds, SQUARE[args.quick])
            found["checks"] = case.checks() if case.checks and not args.mended else {}
        for variant in () if args.no_memory or args.mended else chosen:
            found["measured"]["memory at commit"] = commit_of()
            if case.variants[variant].memory:
                found["variants"][variant] |= peaks(sys.argv[0], name, variant, args.quick)
        print(f"\n{table_of(found)}", flush=True)
        save(args.machine, kind, name, found)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def cosine(found: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(found.double().flatten(), expected.double().flatten(), dim=0))

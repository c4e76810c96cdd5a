"""Steps of prompts in the last blocks only, over what the frozen blocks below gave once, beside the literal form.

    python benchmarks/cached_prefix.py

The tokens lie in a memory-mapped file in float16, as `vpt train` stores them where images are not augmented; a cached
step includes drawing a random batch from it. "Cold" is one batch after the system was told to forget the file.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from literal import Literal
from models import draw, prompted, training_step
from timing import Case, Run, Variant, cosine, main, relative

from vpt.tasks.batch import Batch
from vpt.tasks.classification import StackModelOverPrefix
from vpt.tasks.frozen import FrozenPrefix

HALF = "bf16-mixed"


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="vpt-prefix-")


def stored_tokens(tokens: torch.Tensor, copies: int, name: str) -> Path:
    """Rows (B, ...) as a float16 file of `copies` times as many, as large as a small data set is."""
    path = Path(_folder().name) / f"{name}.npy"
    if not path.exists():
        half = tokens.numpy().astype(np.float16)
        shape = (copies * len(half), *half.shape[1:])
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        for copy in range(copies):
            file[copy * len(half) : (copy + 1) * len(half)] = half
        file.flush()
    return path


def reader(path: Path, batch: int) -> Callable[[], torch.Tensor]:
    """Random batches: every image at its own place of the batch, from a copy drawn anew."""
    stored, rng = np.load(path, mmap_mode="r"), np.random.default_rng(0)
    copies = len(stored) // batch

    def read() -> torch.Tensor:
        return torch.from_numpy(np.array(stored[rng.integers(copies, size=batch) * batch + np.arange(batch)]))

    return read


def cold_milliseconds(path: Path, batch: int) -> float:
    """Of the first batch after the file was dropped from the system's memory; the drive's or host's own may hold it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    reader(path, batch)()
    return 1000 * (time.perf_counter() - started)


class OnRows(torch.nn.Module):
    """Stored rows (B, 1, V) -> logits."""

    def __init__(self, above: StackModelOverPrefix):
        super().__init__()
        self.above = above

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.above(Batch(rows=rows)).logits


def case(name: str, px: int, batch: int, count: int, lasts: tuple[int, ...], copies: int) -> Case:
    images, classes = draw(batch, px)
    slices = (images * 0.5 + 0.5).unsqueeze(1)  # normalised again, by mean and deviation 0.5

    def above(last: int, precision: str = "32-true") -> OnRows:
        model = prompted(name, px, count, blocks=f"last:{last}", precision=precision)
        return OnRows(StackModelOverPrefix(FrozenPrefix(model, model.first_trained_block())))

    def path(last: int) -> Path:
        return stored_tokens(above(last).above.encode(slices), copies, f"last{last}")

    def cached(last: int, precision: str) -> Callable[[], Run]:
        return lambda: training_step(above(last, precision), (images, classes), precision, reader(path(last), batch))

    def recomputed(last: int, precision: str) -> Callable[[], Run]:
        def build() -> Run:
            model = prompted(name, px, count, blocks=f"last:{last}", precision=precision)
            return training_step(model, (images, classes), precision)

        return build

    variants = {
        "literal": Variant(
            "literal form, all blocks, float32",
            lambda: training_step(Literal(prompted(name, px, count)), (images, classes)),
        )
    }
    for last in lasts:
        for precision, end, dtype in (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16")):
            for form, build in (("recomputed", recomputed), ("cached", cached)):
                same = f"{form}{last}"
                label = f"last {last} blocks, {form}, {dtype}"
                variants[f"{same}{end}"] = Variant(label, build(last, precision), precision, same)
        variants[f"read{last}"] = Variant(
            f"reading a batch for the last {last}, warm", lambda last=last: reader(path(last), batch), memory=False
        )

    def checks() -> dict[str, float]:
        found = {}
        for last in lasts:
            expected = recomputed(last, "32-true")()().clone()
            exact = above(last)
            tokens = exact.above.encode(slices)
            found[f"float32 gradient, last {last}, tokens in float32"] = relative(
                training_step(exact, (images, classes), "32-true", lambda tokens=tokens: tokens)(), expected
            )
            for precision, dtype in (("32-true", "float32"), (HALF, "bfloat16")):
                found[f"{dtype} gradient cosine, last {last}"] = cosine(cached(last, precision)()(), expected)
            found[f"cold reading, last {last}, ms"] = cold_milliseconds(path(last), batch)
        return found

    patches, width = (px // 16) ** 2 + 1, 768 if "base" in name else 192
    stored = copies * batch
    return Case(
        title=f"Step of late prompts over a stored prefix: {name}, {px} px, batch {batch}, P = {count}",
        variants=variants,
        base="literal",
        layer=(batch * patches, width),
        checks=checks,
        mended=tuple(key for key in variants if key == "literal" or key.startswith(f"cached{lasts[0]}")),
        settings={
            "backbone": name,
            "image": px,
            "batch": batch,
            "prompts": count,
            "stored images": stored,
            "MiB an image": round(patches * width * 2 / 2**20, 3),
        },
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        return {"vit": case("vit_tiny_patch16_224", 64, 8, 10, (3,), 8)}
    return {"vit": case("vit_base_patch16_224", 224, 8, 10, (3, 6, 1), 64)}


if __name__ == "__main__":
    main("cached_prefix", cases)

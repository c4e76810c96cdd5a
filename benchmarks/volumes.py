"""Reading volumes: the first pass beside MONAI's chain, a cached slice, and how long a training waits for its data.

    python benchmarks/volumes.py [--quick]

A made-up CT of 512x512x100 (int16, gzip). Times are minima over rounds by turns in one process. The first pass is load,
turn, scale, resize to 1.5 mm and write the half-precision cache; MONAI's is LoadImage, Orientation, Spacing to the same
1.5 mm and ScaleIntensityRange, which write nothing. They resize differently (areas are averaged here), so the results
are compared where they mean the same: at the scan's own pixels, and enlarged three times.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from results import allocator, commit_of, load_of, machine_name, save
from timing import by_turns

from vpt.data.layouts import read_dataset
from vpt.data.plan import Plan, Window
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases, prepare_image
from vpt.data.slices.drawing import SliceDataset, SliceDraw, draw_epoch
from vpt.data.transforms import identity, make_augment
from vpt.progress import silent
from vpt.readers import reader_of

SPACING, PIXEL = (0.75, 0.75, 2.5), 1.5  # mm
WINDOW = (-160.0, 240.0)  # HU
RATIO = "MONAI's chain / the first pass here"


def plan_of(pixel_mm: float | None = PIXEL, size: int = 224, window: tuple[float, float] = WINDOW) -> Plan:
    intensity = (Window(low=window[0], high=window[1]),)
    return Plan(
        plane="axial", pixel_mm=pixel_mm, image_size=size, neighbours=True, channels=("CT",), intensity=intensity
    )


def make_scan(image: Path, label: Path, shape: tuple[int, int, int], flips: tuple[int, int] = (1, 1)) -> None:
    """A noisy body in air and an organ in it."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    body, organ = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, ((x - 0.2) / 0.3) ** 2 + (y / 0.3) ** 2 + (z / 0.7) ** 2 < 1
    tissue = 40 + 60 * np.sin(6 * x + 4 * z) * np.cos(5 * y) + 60 * organ
    noise = np.random.default_rng(0).normal(0, 6, shape)
    affine = np.diag([flips[0] * SPACING[0], flips[1] * SPACING[1], SPACING[2], 1])
    for path, array in ((image, np.where(body, tissue + noise, -1024).astype(np.int16)), (label, organ.astype("u1"))):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)


def first_pass(path: Path, plan: Plan, cache: Path) -> None:
    voxels = reader_of(path).voxels(1).oriented(plan.orientation)
    with open(cache, "wb") as file:
        np.save(file, prepare_image(voxels, plan, torch.float16))


def monai_chain(spacing: tuple[float, float, float], window: tuple[float, float] = WINDOW) -> Callable[[Path], Any]:
    from monai.transforms import Compose, LoadImage, Orientation, ScaleIntensityRange, Spacing

    return Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacing(spacing),
            ScaleIntensityRange(*window, 0, 1, clip=True),
        ]
    )


def difference(folder: Path, path: Path) -> float:
    """The largest between MONAI's result and ours, float32 in [0, 1], where both mean the same."""

    def ours(path: Path, pixel: float, window: tuple[float, float] = WINDOW) -> np.ndarray:
        plan = plan_of(pixel, window=window)
        slices = prepare_image(reader_of(path).voxels(1).oriented(plan.orientation), plan)[:, 0]
        return slices.transpose(2, 1, 0)[::-1, ::-1]  # slices to S, rows to P, columns to L -> RAS

    same = np.abs(np.asarray(monai_chain(SPACING)(path))[0] - ours(path, SPACING[0])).max()
    make_scan(folder / "small.nii.gz", folder / "small_label.nii.gz", (50, 41, 7))
    third, wide = SPACING[0] / 3, (-1100.0, 400.0)  # nothing is clipped, which MONAI does after resizing and we before
    fine = np.asarray(monai_chain((third, third, SPACING[2]), wide)(folder / "small.nii.gz"))[0]
    enlarged = ours(folder / "small.nii.gz", third, wide)[1:, 1:]  # MONAI's first pixel centre is the scan's first
    rows, columns = (min(a, b) for a, b in zip(fine.shape, enlarged.shape[:2], strict=False))
    apart = np.abs(fine[:rows, :columns] - enlarged[:rows, :columns]).max()
    return float(max(same, apart))


def cached(case: PreparedCase, samples: SliceDataset, repeats: int) -> dict[str, float]:
    """Milliseconds for a slice of the cache, opened anew as in training, and for the sample made of it: medians."""
    seconds: dict[str, list[float]] = {"slice": [], "sample": []}
    for k in range(repeats):
        started = time.perf_counter()
        np.array(case.read()[0][k % case.depth])
        between = time.perf_counter()
        samples[SliceDraw(0, k % case.depth, k)]
        seconds["slice"].append(between - started)
        seconds["sample"].append(time.perf_counter() - between)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


@dataclass
class Watched:
    """Batches, and the seconds that were waited for the first and for the others."""

    batches: Iterator[Any]
    first: float = 0.0
    others: float = 0.0
    taken: int = 0

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        started = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            waited = time.perf_counter() - started
            self.first, self.others = (waited, 0.0) if self.taken == 0 else (self.first, self.others + waited)
            self.taken += 1


def waiting(cases: list[PreparedCase], plan: Plan, backbone: str, steps: int, workers: int) -> dict[str, float]:
    """Shares of an epoch of `vpt train`'s own loop, 8 deep prompts, batch 8, augmentation `light`."""
    from lightning.fabric import Fabric

    from vpt.backbones import load_backbone
    from vpt.engine.checkpoint import Progress
    from vpt.engine.fit import Hooks, Settings, train_epoch
    from vpt.engine.learning import Learner
    from vpt.engine.loading import load
    from vpt.engine.signals import Signals
    from vpt.heads import MaskHead
    from vpt.model import PromptedModel
    from vpt.prompts import DeepPrompts
    from vpt.tasks.batch import Batch, NamedSamples, Output
    from vpt.tasks.segmentation import SliceModel

    encoder = load_backbone(backbone, weights="random", image_size=plan.image_size)
    model = PromptedModel(encoder, DeepPrompts(encoder.spec, count=8), MaskHead(encoder.spec, classes=2))
    fabric = Fabric(accelerator="auto", devices=1)
    forward = SliceModel(model)
    groups = [{"params": [p for p in model.parameters() if p.requires_grad], "peak": 1e-3}]
    prepared, optimizer = fabric.setup(forward, torch.optim.AdamW(groups, lr=1e-3))
    samples = NamedSamples(SliceDataset(cases, plan, make_augment("light")), ["images", "truth"])

    def loss(output: Output, batch: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(output.logits, batch["truth"])

    def draw(epoch: int) -> list[list[SliceDraw]]:
        return draw_epoch(cases, steps=steps, batch_size=8, foreground=0.5, seed=0, epoch=epoch)

    hooks = Hooks(None, lambda progress: None, lambda progress, best: None)
    for warm in (True, False):
        progress, short = Progress(), Settings(1, 2 if warm else steps, 1, None, workers, 0.0, 1.0)
        started = time.perf_counter()
        drawn = draw(0)[: short.steps]
        batches = Watched(load(samples, drawn, workers))
        learner = Learner(fabric, prepared, optimizer, loss, short.clip)
        train_epoch(learner, batches, drawn, short, progress, hooks, Signals(), silent)
        total = time.perf_counter() - started
    return {"waits": batches.others / (total - batches.first), "with_start": (batches.first + batches.others) / total}


def measure(folder: Path, quick: bool, rounds: int, backbone: str) -> dict[str, Any]:
    shape = (256, 256, 40) if quick else (512, 512, 100)
    root = folder / "set"
    for name, flips in (("a", (1, 1)), ("b", (-1, -1))):  # RAS, which is turned in its plane, and LPS, which is not
        make_scan(root / f"imagesTr/{name}_0000.nii.gz", root / f"labelsTr/{name}.nii.gz", shape, flips)
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}
    (root / "dataset.json").write_text(json.dumps(described))
    path, plan, chain = root / "imagesTr/a_0000.nii.gz", plan_of(), monai_chain((PIXEL, PIXEL, SPACING[2]))
    runs = {
        "monai": lambda: chain(path),
        "first_pass": lambda: first_pass(path, plan, folder / "cache.npy"),
        "read": lambda: reader_of(path).voxels(1),
        "nibabel_float32": lambda: nib.load(path).get_fdata(dtype=np.float32),
    }
    load = load_of()
    ms = {name: 1000 * min(seconds) for name, seconds in by_turns(runs, rounds).items()}
    dataset, trained = read_dataset(root), plan_of(None, 64 if backbone == "vit_micro" else 224)
    cases = prepare_cases(dataset, dataset.cases, trained, folder / "cache", silent)
    own = prepare_cases(dataset, dataset.cases, plan_of(SPACING[0], shape[0]), folder / "own", silent)
    times = cached(own[0], SliceDataset(own, plan_of(SPACING[0], shape[0]), identity), 300)
    steps = 8 if quick else 12
    found = {
        "volume": f"{'x'.join(map(str, shape))} int16, {path.stat().st_size / 2**20:.0f} MiB packed",
        "MONAI's chain, ms": ms["monai"],
        "first pass here, its cache written, ms": ms["first_pass"],
        "reading alone, here, ms": ms["read"],
        "reading alone, nibabel in float32, ms": ms["nibabel_float32"],
        RATIO: ms["monai"] / ms["first_pass"],
        "largest difference where both mean the same": difference(folder, path),
        f"a cached slice, {shape[0]} px, ms": times["slice"],
        "a sample made of it, not augmented, ms": times["sample"],
    }
    for workers in (0, 1):
        share = waiting(cases, trained, backbone, steps, workers)
        found[f"share of an epoch that the encoder waits ({backbone}, {workers} workers)"] = share["waits"]
        found[f"with the start of the workers ({workers})"] = share["with_start"]
    measured = (
        f"{date.today().isoformat()}, commit {commit_of()}, {torch.get_num_threads()} threads, load before {load}"
    )
    return found | {"measured": f"{measured}, {rounds} rounds by turns, allocator {allocator()}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small volume, a small encoder, few rounds")
    parser.add_argument("--rounds", type=int, help="of the first pass; 5, or 2 with --quick")
    parser.add_argument("--backbone", help="of the training; vit_tiny_patch16_224, or vit_micro with --quick")
    parser.add_argument("--machine", default=machine_name(), help="name of the JSON in benchmarks/results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    backbone = args.backbone or ("vit_micro" if args.quick else "vit_tiny_patch16_224")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.quick, args.rounds or (2 if args.quick else 5), backbone)
    for name, value in found.items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    if not args.quick:
        save(args.machine, "volumes", "first_pass", found)


if __name__ == "__main__":
    sys.exit(main())

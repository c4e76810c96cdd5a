"""Pretrain the micro backbone that ships in `vpt/assets/`: a 1.6 M parameter ViT for 64 px images.

Losses that share one forward pass over a partly masked view:

* cross-entropy on the CLS token             -> a global feature,
* cross-entropy on the mean of the patch tokens -> patch tokens that carry meaning,
* regression of the masked patches' normalised pixels (SimMIM, Xie et al., CVPR 2022, section 3)
  -> patch tokens that carry place and structure;
* with `--teacher`: regression of the CLS token and of each patch token of a larger ViT that sees the same view,
* with `--medical`: the same on training pictures of medical data sets, and with `--medical-teacher` regression of
  LiteMedSAM's features there.

All images and all augmentation are on the training device, so one process keeps a GPU or two CPU cores busy.
The run resumes from `OUT/state.pt` after any interruption; the weights are the moving average of the run, and lie in
OUT from the first saved state on. `--seconds` ends the schedule so many seconds after the start.

    python data_scripts/pretrain_micro.py ../shared/pretrain/tinyimagenet64_webp.npz --out runs/micro --epochs 60
    python data_scripts/pretrain_micro.py PACK --out runs/micro --seconds 240 --batch 1024 --lr 2e-3 --compile \
        --teacher vit_small_focus.safetensors --medical ../shared/data/{busi,brain_tumor_mri4,cxr_pneumonia} \
        --medical-teacher lite_medsam.safetensors --mask 0.1 --pixels 0.25

On a CPU the teachers cost three times what the student does: `--stored 4` keeps what they see in four views of every
picture, and later epochs are cheap. `--start FILE` goes on from weights of this script with another schedule.

`vpt/assets/vit_micro.md` (the model card) says which command made the weights that ship.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from micro_batches import Data, read_data
from micro_data import read_images
from micro_student import ARCHITECTURE, Batch, Student, compile_blocks
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
WARMUP = 0.05  # of the schedule
SETTLING = 10  # steps before the clock of `--seconds` starts, in which kernels are chosen
SAVE_SECONDS = 30
LEAST_SECONDS = 5  # of training, where --seconds is over before it begins


def learning_rate(progress: float, peak: float) -> float:
    """Warm-up, then a cosine to a thousandth of the peak; progress in [0, 1]."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.01)
    return 1e-3 * peak + (1 - 1e-3) * peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def size_of_epoch(epoch: int, epochs: int, small: float) -> int:
    """The first share `small` of the epochs runs at 32, then 48 px (a quarter, half of the tokens), the rest at 64."""
    return 64 if epoch >= small * epochs else 48 if epoch >= 0.5 * small * epochs else 32


@dataclass
class Clock:
    """Progress by time: from `first` at the start to 1 at the end, whatever else the machine is doing."""

    end: float
    first: float
    start: float | None = None
    steps: int = 0

    def progress(self, device: torch.device) -> float:
        """To be asked once per step; a GPU's queue counts as time."""
        self.steps += 1
        if self.start is None:
            if self.steps <= SETTLING:
                return self.first
            synchronize(device)
            self.start = time.perf_counter()
            self.end = max(self.end, self.start + LEAST_SECONDS)
        if self.steps % 20 == 0:
            synchronize(device)
        now = time.perf_counter()
        if self.steps == SETTLING + 40:
            pace = (now - self.start) / 40
            print(f"{1000 * pace:.1f} ms a step: about {(self.end - now) / pace:.0f} steps to go", flush=True)
        return min(1.0, self.first + (1 - self.first) * (now - self.start) / (self.end - self.start))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Run:
    """The student, its moving average, and where the training stands."""

    args: argparse.Namespace
    device: torch.device
    student: Student
    average: Student
    optimizer: torch.optim.Optimizer
    weights: Tensor
    epoch: int = 0
    step: int = 0
    progress: float = 0.0
    log: list[list[Any]] = field(default_factory=list)
    saved: float = field(default_factory=time.perf_counter)

    @classmethod
    def start(cls, args: argparse.Namespace, data: Data, device: torch.device) -> Run:
        """From the beginning, or from the state that an earlier run left."""
        widths = (data.teacher.width if data.teacher else 0, data.maps.shape[1] if data.maps is not None else 0)
        student = Student(data.classes, data.groups, *widths, drop_path=args.drop_path).to(device)
        if args.start:
            student.vit.load_state_dict({name: tensor.float() for name, tensor in load_file(args.start).items()})
        average = copy.deepcopy(student).requires_grad_(False)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in student.parameters() if p.ndim > 1], "weight_decay": args.weight_decay},
                {"params": [p for p in student.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=args.lr, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        run = cls(args, device, student, average, optimizer, weights_of(args).to(device))
        if run.state_file.exists():
            run.resume(torch.load(run.state_file, map_location=device, weights_only=True))
        return run

    @property
    def state_file(self) -> Path:
        return self.args.out / "state.pt"

    def resume(self, state: dict[str, Any]) -> None:
        for name in ("student", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch, self.step, self.progress, self.log = (state[k] for k in ("epoch", "step", "progress", "log"))
        if not self.args.seconds:
            self.progress = self.epoch / self.args.epochs
        print(f"resumed at epoch {self.epoch}, {100 * self.progress:.0f} % of the schedule", flush=True)

    def learn(self, batch: Batch, mask: Tensor) -> Tensor:
        """One step -> the losses before they are weighted."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, self.args.lr)
        with torch.autocast(self.device.type, torch.bfloat16):
            parts = self.student.losses(batch, mask)
        self.optimizer.zero_grad(set_to_none=True)
        (parts * self.weights).sum().backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        keep = min(0.9995, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.student.parameters()), 1 - keep)
        self.step += 1
        return parts.detach()

    def save(self) -> None:
        """The state, to go on from, and the weights as they are now."""
        state = {name: getattr(self, name).state_dict() for name in ("student", "average", "optimizer")}
        state |= {"epoch": self.epoch, "step": self.step, "progress": self.progress, "log": self.log}
        torch.save(state, self.state_file.with_suffix(".part"))
        os.replace(self.state_file.with_suffix(".part"), self.state_file)
        weights = {k: v.to("cpu", torch.float16).contiguous() for k, v in self.average.vit.state_dict().items()}
        note = {"architecture": ARCHITECTURE, "mean": MEAN, "std": STD, "epochs": self.epoch, "seed": self.args.seed}
        part = self.args.out / "vit_micro.part"
        save_file(weights, part, metadata={"micro": json.dumps(note)})
        os.replace(part, self.args.out / "vit_micro.safetensors")
        told = {name: value for name, value in vars(self.args).items() if name != "out"}
        log = {"args": told, "columns": ["epoch", "px", "steps", *LOSSES, "validation"], "log": self.log}
        (self.args.out / "log.json").write_text(json.dumps(log, default=_name_of))
        self.saved = time.perf_counter()


LOSSES = ("cls", "patches", "pixels", "teacher cls", "teacher patches", "medical")


def _name_of(path: Path) -> str:
    return path.name


def weights_of(args: argparse.Namespace) -> Tensor:
    """Of the losses in the order of `Student.losses`."""
    return torch.tensor([args.labels, args.labels, args.pixels, args.features, args.features, args.medical_features])


@torch.no_grad()
def accuracy(model: Student, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Top-1 of the mean of both classifiers, in percent."""
    model.eval()
    right = 0
    for batch, truth in zip(images.split(500), labels.split(500), strict=True):
        cls, patches = model.logits(model(batch.to(device).float() / 127.5 - 1, None))
        right += ((cls + patches).argmax(1).cpu() == truth).sum().item()
    return 100 * right / len(labels)


def steps_of_epoch(run: Run, data: Data, size: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches and masks (B, h, w) in the order that the seed and the epoch give."""
    args, seed = run.args, run.args.seed * 10007 + run.epoch
    generator, rng = torch.Generator(run.device).manual_seed(seed), np.random.default_rng((args.seed, run.epoch))
    medical = data.medical_of(args.batch, args.medical_share)
    natural = args.batch - medical
    order = torch.randperm(len(data.images), generator=generator, device=run.device)
    cells = size // ARCHITECTURE["patch_size"]
    for rows in order[: len(order) // natural * natural].view(-1, natural):
        batch = data.batch(rows, medical, size, args.mix, generator, rng)
        mask = torch.rand(args.batch, cells, cells, generator=generator, device=run.device) < args.mask
        yield batch, mask


def train(run: Run, data: Data, val: tuple[Tensor, Tensor], clock: Clock | None) -> None:
    args = run.args
    steps = len(data.images) // (args.batch - data.medical_of(args.batch, args.medical_share)) * args.epochs
    while run.progress < 1:
        started, first = time.perf_counter(), run.step
        size = size_of_epoch(run.epoch, args.epochs, args.small)
        losses = torch.zeros(6, device=run.device)
        for batch, mask in steps_of_epoch(run, data, size):
            run.progress = clock.progress(run.device) if clock else run.step / steps
            if run.progress >= 1:
                break
            losses += run.learn(batch, mask)
        run.epoch += 1
        if clock is None:
            run.progress = run.epoch / args.epochs
        if run.progress >= 1 or time.perf_counter() - run.saved > SAVE_SECONDS:
            report(run, size, losses / max(1, run.step - first), val, time.perf_counter() - started)
            run.save()


def report(run: Run, size: int, losses: Tensor, val: tuple[Tensor, Tensor], seconds: float) -> None:
    """Print and log an epoch. Ends the training where the losses are no numbers, with the last state left as it is."""
    values = losses.tolist()
    if not all(map(math.isfinite, values)):
        raise SystemExit(f"the losses are {values}; start again from the saved state with a lower --lr")
    score = accuracy(run.average, *val, run.device)
    run.log.append([run.epoch, size, run.step, *values, score])
    said = ", ".join(f"{name} {value:.3f}" for name, value in zip(LOSSES, values, strict=True) if value)
    print(f"epoch {run.epoch} ({size} px): {said}, validation {score:.2f} %, {seconds:.1f} s an epoch", flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("pack", type=Path)
    add("--out", type=Path, required=True)
    add("--epochs", type=int, default=60)
    add("--seconds", type=float, help="end the schedule so long after the start, instead of after --epochs")
    add("--batch", type=int, default=256)
    add("--lr", type=float, default=1.5e-3)
    add("--weight-decay", type=float, default=0.05)
    add("--drop-path", type=float, default=0.0)
    add("--mix", type=float, default=0.5, help="share of the batches under mixup or CutMix")
    add("--mask", type=float, default=0.3, help="share of the patches that is masked")
    add("--labels", type=float, default=1.0, help="weight of both losses of labels")
    add("--pixels", type=float, default=0.5, help="weight of the reconstruction loss")
    add("--small", type=float, default=0.0, help="share of the epochs at 32 and 48 px")
    add("--teacher", type=Path, metavar="FILE", help="weights of a larger ViT to learn features from")
    add("--teacher-name", default="vit_small_patch14_dinov2", help="timm's name of it")
    add("--features", type=float, default=15.0, help="weight of the losses of the teacher's CLS token and patches")
    add("--medical", type=Path, nargs="+", metavar="DIR", help="data sets, or one pack of `micro_data.py medical`")
    add("--medical-share", type=float, default=0.25, help="of every batch")
    add("--medical-teacher", type=Path, metavar="FILE", help="weights of LiteMedSAM")
    add("--medical-features", type=float, default=8.0, help="weight of the loss of LiteMedSAM's features")
    add("--medical-px", type=int, default=256, help="pixels at which LiteMedSAM sees a picture")
    add("--stored", type=int, metavar="K", help="the teachers see K views of every picture, once, kept in OUT")
    add("--start", type=Path, metavar="FILE", help="weights of this script to start from")
    add("--seed", type=int, default=0)
    add("--compile", action="store_true")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if args.medical_teacher and not args.medical:
        parser.error("--medical-teacher needs --medical")
    if args.medical and not (args.teacher or args.medical_teacher):
        parser.error("--medical needs a teacher, since no labels of it are used: --teacher or --medical-teacher")
    if args.stored and not (args.teacher and torch.device(args.device).type == "cpu"):
        parser.error("--stored is for --device cpu with a --teacher")
    if args.small and (args.teacher or args.seconds):
        parser.error("--small goes with --epochs and without a teacher, whose patches are those of 64 px")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    started = time.perf_counter()
    args = arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    timm.layers.set_fused_attn(device.type != "cpu")  # on CPUs plain attention steps 1.8 times faster in bfloat16
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    data = read_data(args, device)
    run = Run.start(args, data, device)
    if args.compile:
        compile_blocks(run.student.vit, args.batch, ARCHITECTURE["img_size"], torch.float32)
        if data.teacher:
            compile_blocks(data.teacher.vit, args.batch, data.teacher.size, data.teacher.dtype)
    clock = None
    if args.seconds:
        clock = Clock(started + args.seconds - min(5.0, 0.1 * args.seconds), run.progress)
        print(f"ready after {time.perf_counter() - started:.1f} s", flush=True)
    train(run, data, read_images(args.pack, "val"), clock)
    print(f"done: {run.step} steps, {args.out / 'vit_micro.safetensors'}", flush=True)


if __name__ == "__main__":
    main()

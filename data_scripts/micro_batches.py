"""Batches for the micro backbone, made on the device: views, their labels, and what the teachers see in them."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from micro_data import Pictures, read_images, read_medical
from micro_stored import Group, Stored, StoredViews
from micro_student import ARCHITECTURE, Batch
from micro_teachers import Teacher, enlarged, medical_maps
from micro_views import draw_mixing, draw_views, mixed
from torch import Tensor


@dataclass
class Data:
    """All that is trained on, on the device; maps (N, C, 16, 16): features of LiteMedSAM for the medical pictures."""

    images: Tensor
    labels: Tensor
    classes: int
    medical: Pictures | None = None
    teacher: Teacher | None = None
    maps: Tensor | None = None
    stored: StoredViews | None = None

    def medical_of(self, batch: int, share: float) -> int:
        """How many pictures of a batch are medical."""
        return round(batch * share) if self.medical else 0

    @property
    def groups(self) -> int:
        """The natural pictures, then every medical data set."""
        return 1 + (len(self.medical.names) if self.medical else 0)

    def batch(
        self, rows: Tensor, medical: int, size: int, mix: float, generator: torch.Generator, rng: np.random.Generator
    ) -> Batch:
        """Views of the natural pictures `rows`, partly mixed, and of so many medical ones drawn at random."""
        shares = draw_mixing(rng, rows.device) if rng.random() < mix else None
        targets = F.one_hot(self.labels[rows], self.classes).float() * 0.9 + 0.1 / self.classes
        if shares is not None:
            targets = shares.mean() * targets + (1 - shares.mean()) * targets.flip(0)
        if self.stored is not None:
            return self.stored.batch(rows, targets, shares, medical, generator)
        seen, large = self._views(self.images[rows], shares, size, generator)
        group = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        maps = None
        if self.medical is not None:
            drawn = torch.randint(len(self.medical.images), (medical,), generator=generator, device=rows.device)
            more = draw_views(medical, generator)
            images = self.medical.images[drawn]
            seen = torch.cat([seen, more.tint(more.cut(images.float() / 255, size))])
            group = torch.cat([group, 1 + self.medical.numbers[drawn]])
            if large is not None and self.teacher is not None:
                large = torch.cat([large, enlarged(images, more, self.teacher.size)])
            if self.maps is not None:
                maps = more.cut(self.maps[drawn].float(), size // ARCHITECTURE["patch_size"]).flatten(2).mT
        features = self.teacher.targets(large, group) if self.teacher and large is not None else None
        member = F.one_hot(group, self.groups).float()
        return Batch(seen * 2 - 1, targets, member, features, maps)

    def _views(
        self, images: Tensor, shares: Tensor | None, size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """The same views as the student and as the teacher sees them, RGB in [0, 1]."""
        views = draw_views(len(images), generator)
        seen = views.tint(views.cut(images.float() / 255, size))
        large = enlarged(images, views, self.teacher.size) if self.teacher else None
        if shares is None:
            return seen, large
        return mixed(seen, shares), None if large is None else mixed(large, shares)


def read_data(args: argparse.Namespace, device: torch.device) -> Data:
    images, labels = read_images(args.pack, "train")
    data = Data(images.to(device), labels.to(device), int(labels.max()) + 1)
    if args.medical:
        data.medical = read_medical(args.medical).to(device)
    if args.medical_teacher:
        data.maps = kept_maps(args, data.medical)
    if args.teacher:
        data.teacher = Teacher(args.teacher_name, args.teacher, device)
        medical, numbers = (data.medical.images, data.medical.numbers) if data.medical else (None, None)
        groups = [data.images, *(medical[numbers == k] for k in range(data.groups - 1))]
        data.teacher.measure(groups, torch.Generator(device).manual_seed(args.seed))
        if args.stored:
            data.stored = stored_views(args, data, data.teacher)
    return data


def kept_maps(args: argparse.Namespace, pictures: Pictures) -> Tensor:
    """LiteMedSAM's features, those that an earlier run left in OUT, or new ones."""
    file = args.out / "maps.pt"
    note = [len(pictures.images), args.medical_px, args.medical_teacher.name]
    if file.exists():
        found = torch.load(file, map_location=pictures.images.device, weights_only=True)
        if found["note"] != note:
            raise SystemExit(f"{file}: is of {found['note']}; this run wants {note}: give another --out")
        return found["maps"]
    maps = medical_maps(pictures, args.medical_teacher, args.medical_px)
    torch.save({"note": note, "maps": maps}, file.with_suffix(".part"))
    os.replace(file.with_suffix(".part"), file)
    return maps


def stored_views(args: argparse.Namespace, data: Data, teacher: Teacher) -> StoredViews:
    """Those that an earlier run left in OUT, or new ones."""

    def of(name: str, group: Group) -> Stored:
        return Stored.of(group, teacher, args.stored, args.out / name, args.seed)

    natural = of("natural", Group(data.images, torch.zeros(len(data.images), dtype=torch.int64)))
    if data.medical is None:
        return StoredViews(natural, None, torch.empty(0, dtype=torch.int64), data.groups)
    numbers = 1 + data.medical.numbers
    return StoredViews(natural, of("medical", Group(data.medical.images, numbers, data.maps)), numbers, data.groups)

"""Views of which the teachers' features are kept, for a machine on which the teachers cost more than the student.

Of every picture a few views are drawn once, the teachers see them once, and every epoch takes one of them, mirrored or
not and mixed anew; the features are mirrored and mixed with it. What a teacher would see in a mixed picture is taken to
be what it sees in the two, mixed alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from micro_student import ARCHITECTURE, Batch
from micro_teachers import Teacher, enlarged
from micro_views import CELLS, draw_views, mixed
from torch import Tensor

STEP = 1 / 16  # of standardised features, which are kept as whole numbers of eight bits: up to 8 deviations
CHUNK = 256  # views at once


@dataclass(frozen=True)
class Group:
    """Pictures (N, 3, S, S) uint8, the group of each (N,), perhaps LiteMedSAM's features for them (N, D, 16, 16)."""

    images: Tensor
    numbers: Tensor
    maps: Tensor | None = None


@dataclass(frozen=True)
class Stored:
    """V views: pictures (V, 3, 64, 64) uint8; cls (V, C), patches (V, C, 8, 8), maps (V, D, 8, 8) int8, or none."""

    arrays: dict[str, np.ndarray]
    views: int  # of each picture: that of picture i are i, N + i, 2 N + i, ...

    def drawn(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One view of each of the pictures `rows` (B,), half of them mirrored, as floats: pictures in [0, 1]."""
        count = len(self.arrays["pictures"]) // self.views
        which = rows + count * torch.randint(self.views, rows.shape, generator=generator)
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        found = {}
        for name, array in self.arrays.items():
            values = torch.from_numpy(array[which.numpy()]).float() * (1 / 255 if name == "pictures" else STEP)
            if values.ndim == 4:
                values = torch.where(flipped[:, None, None, None], values.flip(-1), values)
            found[name] = values
        return found

    @classmethod
    def of(cls, group: Group, teacher: Teacher, views: int, folder: Path, seed: int) -> Stored:
        """Read from the folder, or made there; what was interrupted goes on."""
        count = views * len(group.images)
        cells, width = (CELLS, CELLS), teacher.width
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "pictures": (np.uint8, (count, 3, ARCHITECTURE["img_size"], ARCHITECTURE["img_size"])),
            "cls": (np.int8, (count, width)),
            "patches": (np.int8, (count, width, *cells)),
        }
        if group.maps is not None:
            shapes["maps"] = (np.int8, (count, group.maps.shape[1], *cells))
        folder.mkdir(parents=True, exist_ok=True)
        mark, note = folder / "done.json", {"views": views, "seed": seed, "pictures": len(group.images)}
        told = json.loads(mark.read_text()) if mark.exists() else {**note, "done": 0}
        if {key: told[key] for key in note} != note:
            raise SystemExit(f"{folder}: holds other views, {told}; this run wants {note}: give another --out")
        arrays = {}
        for name, (dtype, shape) in shapes.items():
            file = folder / f"{name}.npy"
            arrays[name] = (
                np.load(file, mmap_mode="r+")
                if told["done"]
                else np.lib.format.open_memmap(file, "w+", dtype=dtype, shape=shape)
            )
        started = time.perf_counter()
        for rows in _chunks(told["done"], count):
            generator = torch.Generator().manual_seed(seed * 1000003 + rows.start)
            for name, values in _seen(group, teacher, rows, generator).items():
                arrays[name][rows.start : rows.stop] = values.numpy()
            mark.write_text(json.dumps({**note, "done": rows.stop}))
            if rows.start // CHUNK % 20 == 0:
                pace = (time.perf_counter() - started) / (rows.stop - told["done"])
                print(
                    f"{folder.name}: {rows.stop} of {count} views, {pace * (count - rows.stop):.0f} s to go", flush=True
                )
        return cls(arrays, views)


def _chunks(start: int, count: int) -> Iterator[range]:
    for first in range(start, count, CHUNK):
        yield range(first, min(first + CHUNK, count))


def _seen(group: Group, teacher: Teacher, rows: range, generator: torch.Generator) -> dict[str, Tensor]:
    """New views of the pictures that these rows are of, and what the teachers see in them."""
    which = torch.arange(rows.start, rows.stop) % len(group.images)
    views, images = draw_views(len(which), generator), group.images[which]
    seen = views.tint(views.cut(images.float() / 255, ARCHITECTURE["img_size"]))
    cls, patches = teacher.targets(enlarged(images, views, teacher.size), group.numbers[which])
    found = {"pictures": (seen * 255).round().to(torch.uint8), "cls": _coarse(cls[:, 0])}
    found["patches"] = _coarse(patches.mT.unflatten(2, (CELLS, CELLS)))
    if group.maps is not None:
        found["maps"] = _coarse(views.cut(group.maps[which].float(), CELLS))
    return found


def _coarse(features: Tensor) -> Tensor:
    return (features / STEP).round().clamp(-127, 127).to(torch.int8)


@dataclass(frozen=True)
class StoredViews:
    """Of the natural pictures, and of the medical ones where there are some."""

    natural: Stored
    medical: Stored | None
    numbers: Tensor  # the groups of the medical pictures
    groups: int

    def batch(
        self, rows: Tensor, targets: Tensor, shares: Tensor | None, medical: int, generator: torch.Generator
    ) -> Batch:
        """Views of the natural pictures `rows`, mixed by `shares` as their targets (N, K), and of medical ones."""
        found = self.natural.drawn(rows, generator)
        if shares is not None:
            found["pictures"], found["patches"] = (mixed(found[name], shares) for name in ("pictures", "patches"))
            found["cls"] = shares.mean() * found["cls"] + (1 - shares.mean()) * found["cls"].flip(0)
        group, maps = torch.zeros(len(rows), dtype=torch.int64), None
        if self.medical is not None:
            drawn = torch.randint(len(self.numbers), (medical,), generator=generator)
            more = self.medical.drawn(drawn, generator)
            maps = more["maps"].flatten(2).mT if "maps" in more else None
            found = {name: torch.cat([found[name], more[name]]) for name in found}
            group = torch.cat([group, self.numbers[drawn]])
        features = found["cls"][:, None], found["patches"].flatten(2).mT
        return Batch(found["pictures"] * 2 - 1, targets, F.one_hot(group, self.groups).float(), features, maps)

"""The attention that every place of a scan gives to each prompt, as NIfTI files on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.files import make_folder
from vpt.machine.memory import in_gb, total_memory
from vpt.model import Output
from vpt.progress import Tick, silent
from vpt.readers import Scan
from vpt.readers.grid import restore
from vpt.readers.nifti import write_steps
from vpt.tasks.batch import Batch, Forward
from vpt.tasks.images import Normalise
from vpt.tasks.segmentation import logits_of_slices
from vpt.use.inference import CPU, in_smaller_batches
from vpt.use.prepared_scan import PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.words import counted

STEPS = 65535  # of a file's largest weight: what its numbers are kept in
SHARE = 4  # of the machine's memory the maps of all slices take a fourth at most


@dataclass(eq=False)
class _Read:
    """Of every image that went through, in order: block -> mean of the heads' weights, (rows, columns, P) float16."""

    maps: list[dict[int, np.ndarray]] = field(default_factory=list)


def write_volumes(
    segmenter: Segmenter, scan: Scan, folder: Path, force: bool = False, progress: Tick = silent
) -> tuple[Path, ...]:
    """`block03_prompt02.nii.gz` and its like into a folder, for every prompt its attention over the whole scan.

    That is the softmax weight that each voxel's patch gives it, mean of the heads, with the scan's own shape and
    affine; 0 where the plan skips or crops. Larger slices are tiled as in segmentation, and weights are interpolated
    between patches. Memory holds all maps at the size of the patches (2 bytes a number), and one prompt's volume.

    Raises:
        VptError: what `Segmenter.prepare` and `read_prompts` refuse; maps that are a fourth of the memory and more.
    """
    prepared = segmenter.prepare(scan, force)
    name = prepared.reader.name
    read = in_smaller_batches(name, segmenter.batch_size, lambda batch: _read(segmenter, prepared, batch))
    counts = {i: maps.shape[-1] for i, maps in (read.maps[0] if read.maps else {}).items()}
    if not counts:
        raise VptError(f"{name}: all of its slices are blank, so nothing attends to a prompt")
    make_folder(folder, "choose another place")
    places = [(block, number) for block, count in counts.items() for number in range(count)]
    written = []
    for done, (block, number) in enumerate(places, start=1):
        path = folder / f"block{block:02d}_prompt{number:02d}.nii.gz"
        _write(path, segmenter, prepared, [maps[block][..., number] for maps in read.maps])
        written.append(path)
        progress(done, len(places), path.name)
    return tuple(written)


def _read(segmenter: Segmenter, scan: PreparedScan, batch: int) -> _Read:
    found, size = _Read(), segmenter.plan.image_size
    normalise = Normalise.of(segmenter.model).to(segmenter.device)

    def forward(images: Batch) -> Output:
        read = read_prompts(segmenter.model, normalise(images["images"]))
        means = {i: each.weights.mean(1).half().cpu().numpy() for i, each in read.items()}
        _require_room(scan, means, len(images["images"]))
        found.maps += [{i: maps[k] for i, maps in means.items()} for k in range(len(images["images"]))]
        return Output(torch.zeros(len(images["images"]), 1, size, size, device=segmenter.device))

    for _ in _through(segmenter, scan, forward, batch):
        pass
    return found


def _require_room(scan: PreparedScan, means: dict[int, np.ndarray], images: int) -> None:
    """By the first images of the scan, of which there are at least as many as slices."""
    need = sum(maps.nbytes for maps in means.values()) // images * len(scan.slices)
    if need * SHARE > total_memory(CPU):
        raise VptError(
            f"{scan.reader.name}: the attention of {counted(len(scan.slices), 'slice')} to all prompts takes "
            f"{in_gb(need)}, more "
            "than a fourth of this machine's memory; leave it out with --no-volume"
        )


def _write(path: Path, segmenter: Segmenter, scan: PreparedScan, maps: list[np.ndarray]) -> None:
    """maps: (rows, columns) of every image that went through, in order."""
    size, images = segmenter.plan.image_size, iter(maps)

    def forward(batch: Batch) -> Output:
        own = np.stack([next(images) for _ in batch["images"]])
        weights = torch.from_numpy(own).float()[:, None].to(segmenter.device)
        return Output(F.interpolate(weights, size=(size, size), mode="bilinear", align_corners=False))

    step = max(float(max(one.max() for one in maps)), 1e-12) / STEPS
    volume = np.zeros(scan.oriented.shape, np.uint16)
    for place, found in enumerate(_through(segmenter, scan, forward, segmenter.batch_size)):
        if found is not None:
            volume[place] = (found[0] / step).round().clamp(0, STEPS).cpu().numpy()
    whole = restore(volume, segmenter.plan.orientation, scan.grid, scan.part.box)
    write_steps(path, whole, scan.grid.affine, step)


def _through(segmenter: Segmenter, scan: PreparedScan, forward: Forward, batch: int) -> Iterator[Tensor | None]:
    return logits_of_slices(
        forward,
        scan.slices,
        segmenter.plan,
        pixels=scan.oriented.shape[1:],
        device=segmenter.device,
        batch_size=batch,
    )

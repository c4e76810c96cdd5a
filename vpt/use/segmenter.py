"""New scans and images: `vpt.load(run).segment(scan)` gives a label map on the scan's own grid."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpt.data.cached_slices import prepare_image
from vpt.data.cases import Case, find_scans, kind_of
from vpt.data.hints import Frame, make_hints
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.files import atomic, make_folder
from vpt.machine.memory import inference_batch
from vpt.machine.precision import Chosen, under_autocast
from vpt.model import PromptedModel, numbers_per_image
from vpt.progress import Tick, silent
from vpt.readers import Grid, Mask, Reader, Scan, reader_of
from vpt.readers.grid import restore
from vpt.tasks.segmentation import OnImages, segment_slices
from vpt.use.archives import Failure, attempt, one_ahead, ready, require_kind


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as slices (slices, C, h, w) float32, its grid before and after turning, and its reader, for the mask."""

    slices: np.ndarray
    grid: Grid
    oriented: Grid
    reader: Reader


class Segmenter:
    """Scans -> label maps. Deterministic, keeps no state between scans, safe to share between threads of one device.

    labels: id -> name, with background 0; the masks hold the ids. The model is made ready for inference in place: its
    frozen weights are kept in `precision`, and what the blocks make of its prompts is computed once.
    """

    def __init__(
        self,
        model: PromptedModel,
        plan: Plan,
        labels: dict[int, str],
        device: torch.device,
        precision: Chosen = "32-true",
    ):
        self.model = ready(model, device, precision)
        self.forward = under_autocast(OnImages(self.model).eval().to(device), precision, device)
        self.plan = plan
        self.labels = labels
        self.device = device
        self.batch_size = inference_batch(
            numbers_per_image(self.model.backbone.spec, plan.image_size, len(labels)), device
        )

    def segment(
        self,
        scan: Scan,
        *,
        box: Any = None,
        points: Any = None,
        point_labels: Sequence[int] | None = None,
        frame: Frame = "voxel",
    ) -> Mask:
        """A NIfTI path (several for several channels) or a nibabel image -> labels (X, Y, Z) on its grid, header kept.

        An image's path, or its pixels (rows, columns) or (rows, columns, 3) uint8 -> label ids (rows, columns) in the
        smallest unsigned type.

        A model trained with `head.hints` can be told where to look. Outside the slices that a box crosses all is
        background.

        Args:
            box: the first and the last place inside, ((x, y, z), (x, y, z)); points: [(x, y, z), ...]; of an image
                (x, y), column and row; point_labels: 1 (foreground, the default) or 0 (background) for each point;
            frame: of these coordinates: "voxel", indices of the scan's array, or "ras", mm in its world.

        Raises:
            VptError: what the readers refuse: unreadable, not finite, another number of channels or dimensions; a
                scan of a model that was trained on images, and the other way round; a box or points that lie outside,
                or of a model that takes none.
        """
        return self.segment_prepared(self.prepare(scan), box, points, point_labels, frame)

    def prepare(self, scan: Scan) -> PreparedScan:
        """What the encoder is given of a scan as `segment` takes it, and what its mask is written like."""
        require_kind(self.plan, scan)
        reader = reader_of(scan)
        voxels = reader.voxels(len(self.plan.channels))
        oriented = voxels.oriented(self.plan.orientation)
        return PreparedScan(prepare_image(oriented, self.plan), voxels.grid, oriented.grid, reader)

    def segment_prepared(
        self,
        scan: PreparedScan,
        box: Any = None,
        points: Any = None,
        point_labels: Sequence[int] | None = None,
        frame: Frame = "voxel",
    ) -> Mask:
        """`segment` of a scan that `prepare` gave."""
        if scan.reader.unit == "px" and frame == "ras":
            raise VptError("frame 'ras': an image has no millimetres; give columns and rows with frame 'voxel'")
        hints = make_hints(box, points, point_labels, frame, scan.grid)
        if hints is not None and not self.model.head.takes_hints:
            raise VptError("this model takes no box or points; train one with head.kind=sam_decoder, head.hints=true")
        hints = None if hints is None else hints.moved(scan.grid, scan.oriented)
        shape = scan.oriented.shape
        classes = segment_slices(
            self.forward,
            scan.slices,
            self.plan,
            pixels=shape[1:],
            device=self.device,
            classes=len(self.labels),
            batch_size=self.batch_size,
            hints=None if hints is None else hints.on_slices(shape, scan.slices.shape[2:]),
        )
        if hints is not None:
            classes[~hints.crossed(shape[0])] = 0
        ids = np.array(sorted(self.labels), dtype=np.min_scalar_type(max(self.labels)))
        mask: Mask = scan.reader.mask(restore(ids[classes], self.plan.orientation, scan.grid))
        return mask


def segment_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    target: Callable[[Case], Path],
    progress: Tick = silent,
    box: Callable[[Case], Any] | None = None,
) -> list[Failure]:
    """Segment every case into the file `target(case)`, each complete or absent; a scan that fails stops no other.

    While the encoder runs, a thread prepares the next scan and another writes the mask before, so that memory holds
    two scans at most. Failures and progress come in the order of the cases, a case's once its mask is written.
    `box`: where to look in a case, see `Segmenter.segment`; by default nothing is said.
    """
    failures: list[Failure] = []

    def settle(done: int, written: Future[None] | Failure) -> None:
        case = cases[done]
        failure = written if isinstance(written, Failure) else attempt(case.name, case.images[0], written.result)
        if failure:
            failures.append(failure)
        progress(done + 1, len(cases), case.name)

    images = [case.images for case in cases]
    with ThreadPoolExecutor(1, "vpt-write") as writer, closing(one_ahead(segmenter.prepare, images)) as scans:
        before: Future[None] | Failure | None = None
        for done, (case, scan) in enumerate(zip(cases, scans, strict=True)):
            found = attempt(case.name, case.images[0], partial(_segment_case, segmenter, case, scan, target, box))
            if before:
                settle(done - 1, before)
            before = found if isinstance(found, Failure) else writer.submit(save_labels, *found)
        if before:
            settle(len(cases) - 1, before)
    return failures


def _segment_case(
    segmenter: Segmenter,
    case: Case,
    scan: Callable[[], PreparedScan],
    target: Callable[[Case], Path],
    box: Callable[[Case], Any] | None,
) -> tuple[Path, Mask]:
    path, place = target(case), box and box(case)
    return path, segmenter.segment_prepared(scan(), place)


def plan_outputs(
    scans: str | Path, out: Path, channels: int, overwrite: bool, skip_existing: bool
) -> tuple[list[Case], Callable[[Case], Path]]:
    """Which scans to do and where their masks go: a folder, or one file for one scan.

    Raises:
        VptError: no scans; masks that are there already, unless a flag allows it; a folder that cannot be written.
    """
    cases = list(find_scans(scans, channels))
    single = kind_of(out) is not None and not out.is_dir()
    if single and len(cases) > 1:
        raise VptError(f"{out}: one file for {len(cases)} scans; give a folder as the output")

    if out.suffix.lower() == ".csv" and not out.is_dir():
        raise VptError(f"{out}: the model segments, and its answers are masks; give a folder as the output")
    if single:
        _require_mask_name(out, cases[0])

    def target(case: Case) -> Path:
        return out if single else mask_file(out, case)

    if any(target(case).resolve() == path.resolve() for case in cases for path in case.images):
        raise VptError(f"{out}: the masks would replace the scans themselves; choose another output")
    there = [case for case in cases if target(case).exists()]
    if skip_existing:
        cases = [case for case in cases if case not in there]
    elif there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise VptError(
            f"{target(there[0])}: exists already{more}; add --overwrite or --skip-existing, or choose another output"
        )
    folder = out.parent if single else out
    make_folder(folder, "choose another output")
    if not os.access(folder, os.W_OK):
        raise VptError(f"{folder}: not writable; choose another output or ask for the permission")
    return cases, target


def _require_mask_name(out: Path, case: Case) -> None:
    reader = reader_of(case.images)
    if not out.name.lower().endswith(reader.mask_endings):
        what, name = "an image" if reader.unit == "px" else "a scan", f"NAME{reader.mask_endings[0]}"
        raise VptError(f"{out}: the mask of {what} cannot be written as this; give {name} or a folder as the output")


def mask_file(folder: Path, case: Case) -> Path:
    """Where the mask of a case lies among others: a NIfTI, or a PNG if the case is an image."""
    return folder / f"{case.name}{reader_of(case.images).mask_endings[0]}"


def save_labels(path: Path, labels: Mask) -> None:
    with atomic(path) as part:
        reader_of(labels).write_mask(part, labels)

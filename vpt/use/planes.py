"""Scans looked at in all three planes, `plan.planes=all`: the mean of what one model finds in each decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpt.data.plan import Plan
from vpt.data.slices.prepared import PreparedSlices
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.readers.grid import turned_view
from vpt.tasks.segmentation import logits_of_slices, probabilities_of
from vpt.use.inference import in_smaller_batches
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.segmenter import Segmenter


def segmenter_of(model: PromptedModel, plan: Plan, *given: Any, **more: Any) -> Segmenter:
    """`Segmenter.from_model`, which looks at scans in as many planes as the plan says."""
    kind = SegmenterInPlanes if plan.others else Segmenter
    return kind.from_model(model, plan, *given, **more)


class SegmenterInPlanes(Segmenter):
    """The mean probability of every voxel over axial, coronal and sagittal slices (view aggregation: Roy et al.,
    "QuickNAT", NeuroImage 2019, section 2.4, there of a model for each plane).

    Holds of the prepared part of a scan 4 bytes for each voxel and label, which `require_memory` knows of. Takes no
    box or points.
    """

    def classes_of(
        self, scan: PreparedScan, hints: np.ndarray | None, progress: Tick, keep: Keep | None = None
    ) -> np.ndarray:
        _require_no_hints(hints)

        def in_batches(batch: int) -> np.ndarray:
            found = _told(self._means(scan, batch, progress), keep)
            return self._decided(found, scan)

        return in_smaller_batches(scan.reader.name, self.batch_size, in_batches)

    def probabilities_of(
        self, scan: PreparedScan, hints: np.ndarray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        _require_no_hints(hints)
        return self._means(scan, batch or self.batch_size, silent)

    @property
    def held(self) -> int:
        return 1

    @torch.inference_mode()
    def _means(self, scan: PreparedScan, batch: int, progress: Tick) -> Iterator[Tensor]:
        """Of each slice in the plan's own plane (K, rows, columns); progress: of the slices of all planes."""
        others, done, total = self.plan.others, 0, sum(scan.oriented.shape)
        sums = empty_volume(scan, len(self.labels))
        for plan in others:
            turned = turned_to(plan, scan)
            for into, found in zip(seen_along(plan, sums, scan), self._in(plan, turned.slices, batch), strict=True):
                into += found.cpu().numpy()
                done += 1
                progress(done, total, "")
        for place, own in enumerate(self._in(self.plan, scan.slices, batch)):
            own += torch.from_numpy(sums[place]).to(own.device)
            own /= 1 + len(others)
            progress(done + place + 1, total, "")
            yield own

    def _in(self, plan: Plan, slices: PreparedSlices, batch: int) -> Iterator[Tensor]:
        """Of each of a plane's slices (K, rows, columns) on the scan's own pixels."""
        pixels = slices.voxels.grid.shape[1:]
        logits = logits_of_slices(
            self.forward, slices, plan, pixels=pixels, device=self.device, batch_size=min(batch, self.batch_size)
        )
        return probabilities_of(logits, pixels, len(self.labels), self.device)


def _told(means: Iterator[Tensor], keep: Keep | None) -> Iterator[Tensor]:
    for place, mean in enumerate(means):
        if keep is not None:
            keep(place, mean, (mean,))
        yield mean


def empty_volume(scan: PreparedScan, classes: int) -> np.ndarray:
    """(slices, K, rows, columns) of the prepared part, float32, all 0."""
    depth, rows, columns = scan.oriented.shape
    return np.zeros((depth, classes, rows, columns), np.float32)


def turned_to(plan: Plan, scan: PreparedScan) -> PreparedScan:
    """The same part of a scan as another plan prepares it, in its own plane."""
    voxels = scan.slices.voxels.oriented(plan.orientation)
    return replace(scan, slices=PreparedSlices.of(voxels, plan), oriented=voxels.grid)


def seen_along(plan: Plan, volume: np.ndarray, scan: PreparedScan) -> np.ndarray:
    """(slices, K, rows, columns) of a prepared scan as a view of it in the plane of another plan."""
    return np.moveaxis(turned_view(np.moveaxis(volume, 1, -1), scan.oriented, plan.orientation), -1, 1)


def _require_no_hints(hints: np.ndarray | None) -> None:
    if hints is not None:
        raise VptError("a model that looks at scans in all three planes (plan.planes=all) takes no box or points")

"""New scans and images: `vpt.load(run).segment(scan)` gives a label map on the scan's own grid."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch

from vpt.artifact import read_artifact, restore_model
from vpt.classifier import Classifier
from vpt.data.cases import Case, find_scans, is_image, is_nifti
from vpt.data.hints import Frame, Hints, make_hints
from vpt.data.images import write_mask
from vpt.data.plan import Plan
from vpt.data.slices import prepare_image
from vpt.data.volumes import grid_of, is_picture, load_image, orient, restore
from vpt.errors import VptError
from vpt.files import atomic, make_folder
from vpt.model import PromptedModel
from vpt.new_scans import Failure, Scan, choose_device, ready, require_kind, unforeseen
from vpt.precision import Chosen, Precision, choose_precision, under_autocast
from vpt.progress import Tick, silent
from vpt.tasks.segmentation import OnImages, segment_slices

if TYPE_CHECKING:
    from monai.data import MetaTensor

LabelMap = nib.nifti1.Nifti1Image | np.ndarray


def load(
    run_or_artifact: str | Path,
    device: str = "auto",
    weights: str | Path | None = None,
    precision: Precision | None = None,
) -> Segmenter | Classifier:
    """A trained model, ready for new scans.

    Args:
        run_or_artifact: the folder of a run (its best artifact) or a `.safetensors` file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        weights: where the backbone's weights lie now, if elsewhere than in training.
        precision: `auto` (bfloat16 where the device computes with it), `32-true`, `bf16-mixed`, `16-mixed`; None takes
            what the training was told, `auto` unless someone changed it.

    Raises:
        VptError: not a run or artifact; a backbone whose weights are not those of the training.
    """
    artifact = read_artifact(run_or_artifact)
    model, chosen = restore_model(artifact, weights), choose_device(device)
    computes = choose_precision(precision or artifact.config.precision, chosen)
    if artifact.config.task == "segmentation":
        return Segmenter(model, artifact.plan, artifact.labels, chosen, computes)
    classes, target = list(artifact.labels.values()), artifact.config.data.target or "classes"
    return Classifier(model, artifact.plan, classes, target, chosen, artifact.temperature, computes)


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

    def segment(
        self,
        scan: Scan,
        *,
        box: Any = None,
        points: Any = None,
        point_labels: Sequence[int] | None = None,
        frame: Frame = "voxel",
    ) -> LabelMap:
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
            VptError: what `load_image` refuses: unreadable, not finite, another number of channels or dimensions; a
                scan of a model that was trained on images, and the other way round; a box or points that lie outside,
                or of a model that takes none.
        """
        first = scan[0] if isinstance(scan, list | tuple) and len(scan) == 1 else scan
        flat = is_picture(first)
        require_kind(self.plan, first)
        volume = load_image(first, len(self.plan.channels))
        if flat and frame == "ras":
            raise VptError("frame 'ras': an image has no millimetres; give columns and rows with frame 'voxel'")
        hints = make_hints(box, points, point_labels, frame, grid_of(volume))
        labels = self.segment_volume(volume, hints)
        if flat:
            return np.ascontiguousarray(labels[..., 0].T)
        own: Any = scan if isinstance(scan, nib.nifti1.Nifti1Image) else nib.load(_first(scan))
        return _like(own, labels)

    def segment_volume(self, volume: MetaTensor, hints: Hints | None = None) -> np.ndarray:
        """Volume (C, X, Y, Z) with its affine -> label ids (X, Y, Z) in the smallest integer type that holds them."""
        if hints is not None and not self.model.head.takes_hints:
            raise VptError("this model takes no box or points; train one with head.kind=sam_decoder, head.hints=true")
        oriented = orient(volume, self.plan.orientation)
        slices = prepare_image(oriented, self.plan)
        depth, *pixels = oriented.shape[1:]
        hints = None if hints is None else hints.moved(grid_of(volume), grid_of(oriented))
        classes = segment_slices(
            self.forward,
            slices,
            self.plan,
            pixels=(pixels[0], pixels[1]),
            device=self.device,
            classes=len(self.labels),
            hints=None if hints is None else hints.on_slices((depth, *pixels), slices.shape[2:]),
        )
        if hints is not None:
            classes[~hints.crossed(depth)] = 0
        ids = np.array(sorted(self.labels), dtype=np.min_scalar_type(max(self.labels)))
        return restore(ids[classes], self.plan.orientation, volume)


def _first(scan: Any) -> str | Path:
    return scan if isinstance(scan, str | Path) else scan[0]


def _like(scan: nib.nifti1.Nifti1Image, labels: np.ndarray) -> nib.nifti1.Nifti1Image:
    """Labels under the scan's own header: affine, both transforms and their codes, units."""
    header = scan.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_data_shape(labels.shape)
    return type(scan)(labels, scan.affine, header)  # NIfTI-2 stays NIfTI-2: its header does not fit the other


def segment_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    target: Callable[[Case], Path],
    progress: Tick = silent,
    box: Callable[[Case], Any] | None = None,
) -> list[Failure]:
    """Segment every case into the file `target(case)`, each complete or absent; a scan that fails stops no other.

    `box`: where to look in a case, see `Segmenter.segment`; by default nothing is said.
    """
    failures = []
    for done, case in enumerate(cases):
        try:
            save_labels(target(case), segmenter.segment(case.images, box=box and box(case)))
        except VptError as error:
            failures.append(Failure(case.name, str(error)))
        except (MemoryError, RuntimeError, OSError) as error:
            failures.append(unforeseen(case.name, case.images[0], error))
        progress(done + 1, len(cases), case.name)
    return failures


def plan_outputs(
    scans: str | Path, out: Path, channels: int, overwrite: bool, skip_existing: bool
) -> tuple[list[Case], Callable[[Case], Path]]:
    """Which scans to do and where their masks go: a folder, or one file for one scan.

    Raises:
        VptError: no scans; masks that are there already, unless a flag allows it; a folder that cannot be written.
    """
    cases = list(find_scans(scans, channels))
    single = is_nifti(out) or (is_image(out) and not out.is_dir())
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
    flat = is_image(case.images[0])
    if not (out.suffix.lower() == ".png" if flat else is_nifti(out)):
        what, name = ("an image", "NAME.png") if flat else ("a scan", "NAME.nii.gz")
        raise VptError(f"{out}: the mask of {what} cannot be written as this; give {name} or a folder as the output")


def mask_file(folder: Path, case: Case) -> Path:
    """Where the mask of a case lies among others: a NIfTI, or a PNG if the case is an image."""
    return folder / f"{case.name}{'.png' if is_image(case.images[0]) else '.nii.gz'}"


def save_labels(path: Path, labels: LabelMap) -> None:
    with atomic(path) as part:
        write_mask(part, labels) if isinstance(labels, np.ndarray) else nib.save(labels, part)

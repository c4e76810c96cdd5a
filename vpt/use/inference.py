"""What segmenting and classifying new scans share: what a scan may be, and a model that is made ready for them."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from vpt.data.bit_depth import in_8_bits
from vpt.data.cases import case_name
from vpt.data.cropping import Part
from vpt.data.doubts.headers import another_size, reader_doubts
from vpt.data.doubts.unlike import equal_channels
from vpt.data.doubts.values import Expected, doubt_of
from vpt.data.framing import size_of_slices
from vpt.data.plan import Plan
from vpt.data.values import values_of
from vpt.data.wider_fields import unlike_foreground
from vpt.errors import HeaderWarning, VptError, VptWarning
from vpt.machine.memory import in_gb, total_memory
from vpt.machine.precision import autocast, prepare_frozen, slow_precision
from vpt.machine.scarce import KINDS, is_out_of_memory
from vpt.model import Output, PromptedModel
from vpt.readers import SUPPORTED, Grid, Reader, Voxels, format_of, reader_of
from vpt.readers.content import other_content
from vpt.readers.grid import by
from vpt.readers.in_memory import flat_pixels
from vpt.tasks.batch import Batch, Forward
from vpt.vocabulary import Chosen, Precision
from vpt.words import counted, listed, with_article

Made = TypeVar("Made")

CPU = torch.device("cpu")


@torch.inference_mode(False)  # as `load_backbone`
def make_ready(model: PromptedModel, device: torch.device, precision: Chosen) -> PromptedModel:
    """The model in eval mode on its device, made ready for inference in that precision, in place."""
    model = model.eval().to(device)
    prepare_frozen(model.backbone, precision)
    with autocast(precision, device):
        return model.project_prompts()


@dataclass(frozen=True, eq=False)
class InPrecision:
    """`forward` in that precision, its logits in float32; a closure could not be sent to another process."""

    forward: Forward
    precision: Chosen
    device: torch.device

    def __call__(self, batch: Batch) -> Output:
        with autocast(self.precision, self.device):
            return Output(self.forward(batch).logits.float())


def require_kind(plan: Plan, scan: Any) -> None:
    """A scan has millimetres and an image has not, so a plan for one does not fit the other."""
    kind = reader_of(scan).kind
    if kind != plan.kind:
        first = scan[0] if isinstance(scan, tuple | list) and scan else scan  # of several channels
        if isinstance(first, str | Path):
            if not Path(first).exists():
                raise VptError(f"{first}: no such file or folder")
            if misnamed := other_content(Path(first)):
                raise misnamed
            if Path(first).is_file() and format_of(Path(first)) is None:
                raise VptError(f"{first}: not a supported ending; {SUPPORTED}; convert it")
            several = isinstance(scan, tuple | list) and len(scan) > 1
            if several and plan.kind == "images" and format_of(Path(first)) is not None:
                raise VptError(f"{first}: one of {len(scan)} in a list, expected one image; give them one by one")
        shown = first if isinstance(first, str | Path) else with_article(type(scan).__name__)
        if isinstance(scan, np.ndarray):
            raise VptError(
                f"an array of shape {scan.shape} says no spacing, and the model was trained on volumes in mm; "
                "give a NIfTI file, or nibabel.Nifti1Image(array, affine)"
            )
        if plan.kind == "images" and hasattr(scan, "as_tensor"):
            raise VptError(
                f"{shown}: its rows and columns may lie either way, and the model was trained on images; give the "
                "image's file, or its pixels as an array (rows, columns)"
            )
        found, expected = ("an image", "NIfTI volumes") if kind == "images" else ("a volume", "images")
        raise VptError(f"{shown}: {found}, but the model was trained on {expected}; give it what it was trained on")


class ReadScan(NamedTuple):
    """A new scan's reader and voxels, and what was warned of its values."""

    reader: Reader
    voxels: Voxels
    warned: tuple[str, ...]


def read_scan(plan: Plan, scan: Any, force: bool = False, labels: int = 0, held: int = 0) -> ReadScan:
    """A new scan whose values and mm fit those of the training. labels: that it is segmented into, which takes memory;
    held: see `require_memory`.

    Raises:
        VptError: what the readers refuse, more voxels than there is memory for, another kind than the plan's, and
            mm or values that do not look like those of the training; with `force` these are only warned of
            (`VptWarning`).
    """
    scan = flat_pixels(scan) if plan.kind == "images" else scan
    require_kind(plan, scan)
    reader = reader_of(scan)
    require_memory(plan, reader, labels, held)
    require_channels(plan, scan, reader)
    voxels, expected = reader.voxels(len(plan.channels)), Expected.by(plan)
    if expected is not None and "8 bits" in expected.units:
        voxels = in_8_bits(voxels, reader.white())
    return ReadScan(reader, voxels, require_usual(plan, reader.name, voxels, force))


def require_channels(plan: Plan, scan: Any, reader: Reader) -> None:
    """Of a model of several channels: as many as it was trained on, and none that its file's name calls another.

    A word that is in the names of all the files says nothing of any.
    """
    names = plan.channels
    if len(names) < 2 or plan.kind == "images":
        return
    if (found := reader.count_channels(exact=False)) != len(names):
        order = ", ".join(f"CASE_{number:04d} {name}" for number, name in enumerate(names))
        raise VptError(
            f"{reader.name}: {counted(found, 'channel')}, expected {counted(len(names), 'channel')} as the training "
            f"had them: {order}; call the files so, or give a 4-D file that holds them in this order"
        )
    if not isinstance(scan, tuple | list) or not all(isinstance(each, str | Path) for each in scan):
        return
    if len(scan) < len(names):  # a 4-D file, which says nothing of its channels
        return
    words = [_words(case_name(Path(each))) for each in scan]
    common = set.intersection(*words)
    for path, its, own in zip(scan, words, names, strict=True):
        said = [name for name in names if name.lower() in its - common]
        if said and own not in said and not _words(own) <= its:
            raise VptError(
                f"{path}: given as the channel {own}, and its name says {listed(said)}; give the channels in the order "
                f"of the training: {', '.join(names)}"
            )


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word}


def require_memory(plan: Plan, reader: Reader, labels: int, held: int = 0) -> None:
    """Refuse a scan that takes more than the machine has, by its header alone, before anything is read.

    At the least a byte for each voxel of a channel, the mask twice, and of one slice two float32 for each label.

    held: how many volumes of probabilities are held, float32 for each voxel and label; of a foreground, whose size no
    header says, they are not reckoned with.
    """
    grid = reader.grid()
    mask, slice_pixels = 2 * bool(labels), prod(grid.turned(plan.orientation)[1].shape[1:])
    need = prod(grid.shape) * (len(plan.channels) + mask) + slice_pixels * labels * 8
    need += held * prod(grid.shape) * labels * 4 * (plan.crop == "none")
    if need > (there := total_memory(CPU)):
        raise VptError(
            f"{reader.name}: {by(grid.shape)} voxels take at least {in_gb(need)} to be answered, and this machine has "
            f"{in_gb(there)}; correct the shape in its header, cut the scan into pieces, or use a larger machine"
        )


def in_smaller_batches(name: str, batch: int, work: Callable[[int], Made]) -> Made:
    """What `work` makes of so many images at once; where there is too little memory, of half as many, down to one.

    Another batch rounds otherwise, so it is warned of (`VptWarning`). Raises VptError where one image is too much.
    """
    try:
        return work(batch)
    except KINDS as error:
        if not is_out_of_memory(error):
            raise
        if batch == 1:
            raise VptError(
                f"{name}: too little memory for one image at a time; free some, use a machine with more, or with a GPU "
                "that is too small --device cpu"
            ) from error
    fewer = batch // 2
    told = (
        f"{name}: too little memory for {counted(batch, 'image')} at once, done with {fewer}; single voxels may differ"
    )
    warnings.warn(told, VptWarning, stacklevel=_callers_level())
    return in_smaller_batches(name, fewer, work)


def warn_of_header(reader: Reader, *plans: Plan) -> None:
    """Say what a scan's header leaves open, as `vpt predict` does: a `HeaderWarning` at the user's own line.

    plans: of the models that are given it; what several of them doubt alike is said once.
    """
    for text in dict.fromkeys(text for plan in plans for text in reader_doubts(reader, plan)):
        warnings.warn(text, HeaderWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """The `stacklevel` of a warning, given by the caller of this, that shows the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "vpt":
        level, frame = level + 1, frame.f_back
    return level


def warn_of_field(plan: Plan, name: str, whole: Grid, part: Part) -> tuple[str, ...]:
    """Warn where the foreground of a scan is more than in training -> the warnings, see `unlike_foreground`."""
    text = unlike_foreground(plan, part, whole)
    return warn(f"{name}: {text}") if text else ()


def require_usual(plan: Plan, name: str, voxels: Voxels, force: bool) -> tuple[str, ...]:
    """Raise VptError, or with `force` warn, where mm or values do not look like those of the training -> the warnings.

    A volume of one value throughout is warned of: of pictures some are black, as between the parts of a film.
    """
    size = _refuse_size(f"{name}: {text}", voxels, plan, force) if (text := another_size(voxels.grid, plan)) else ()
    expected = Expected.by(plan)
    if expected is None:
        return size
    found = values_of(voxels)
    if plan.kind == "volumes" and all(channel.low == channel.high for channel in found.channels):
        said = f"{name}: all voxels are {found.channels[0].low:g}; is the export complete?"
        return (*size, *warn(said))
    trained = expected.values.channels
    same = equal_channels(found) if plan.kind == "volumes" else []
    for first, second in [(a, b) for a, b in same if trained[a] != trained[b]][:1]:  # else it was trained so
        both = f"{plan.channels[first]} and {plan.channels[second]}"
        said = f"{name}: {both} hold the same values; is one file given under two names? Give each channel its own scan"
        size = (*size, *warn(said))
    if doubt := doubt_of(found, expected):
        return (*size, *refuse(f"{name}: {doubt.sentence('that the model was trained on')}", force))
    return size


def _refuse_size(said: str, voxels: Voxels, plan: Plan, force: bool) -> tuple[str, ...]:
    """`refuse`, but where no slice could be made of such a size either way, force is no way to go on."""
    try:
        size_of_slices("", voxels.grid.turned(plan.orientation)[1], plan)
    except VptError:
        raise VptError(said) from None
    return refuse(said, force)


def refuse(said: str, force: bool) -> tuple[str, ...]:
    """Raise VptError, or with `force` warn -> the warning."""
    if not force:
        raise VptError(f"{said}, or go on with --force (force=True)")
    return warn(said)


def warn_of_precision(precisions: Iterable[Precision], device: torch.device) -> None:
    """Say of a precision that the processor only imitates, see `slow_precision`."""
    for said in dict.fromkeys(slow_precision(precision, device) for precision in precisions):
        if said:
            warn(said)


def warn(said: str) -> tuple[str, ...]:
    """A `VptWarning` at the user's own line -> what was said."""
    warnings.warn(said, VptWarning, stacklevel=_callers_level())
    return (said,)

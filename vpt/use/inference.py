"""What segmenting and classifying new scans share: what a scan may be, and a model that is made ready for them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from vpt.data.depth import in_8_bits
from vpt.data.header_doubts import reader_doubts
from vpt.data.plan import Plan
from vpt.data.value_doubts import Expected, doubt_of
from vpt.data.values import values_of
from vpt.errors import HeaderWarning, VptError, VptWarning
from vpt.machine.precision import Chosen, autocast, prepare_frozen
from vpt.model import Output, PromptedModel
from vpt.readers import Reader, Voxels, reader_of
from vpt.tasks.batch import Batch, Forward


def make_ready(model: PromptedModel, device: torch.device, precision: Chosen) -> PromptedModel:
    """The model in eval mode on its device, made ready for inference in that precision, in place."""
    model = model.eval().to(device)
    prepare_frozen(model.backbone, precision)
    with autocast(precision, device):
        return model.project_prompts()


def in_precision(forward: Forward, precision: Chosen, device: torch.device) -> Forward:
    """`forward` in that precision, its logits in float32."""

    def run(batch: Batch) -> Output:
        with autocast(precision, device):
            return Output(forward(batch).logits.float())

    return run


def require_kind(plan: Plan, scan: Any) -> None:
    """A scan has millimetres and an image has not, so a plan for one does not fit the other."""
    kind = reader_of(scan).kind
    if kind != plan.kind:
        shown = scan if isinstance(scan, str | Path) else f"a {type(scan).__name__}"
        found, expected = ("an image", "NIfTI volumes") if kind == "images" else ("no image", "images")
        raise VptError(f"{shown}: {found}, but the model was trained on {expected}; give it what it was trained on")


def read_scan(plan: Plan, scan: Any, force: bool = False) -> tuple[Reader, Voxels]:
    """A new scan's reader and voxels, with values that fit those of the training.

    Raises:
        VptError: what the readers refuse, another kind than the plan's, and values that do not look like those of the
            training; with `force` these are only warned of (`VptWarning`).
    """
    require_kind(plan, scan)
    reader = reader_of(scan)
    voxels, expected = reader.voxels(len(plan.channels)), Expected.by(plan)
    if expected is not None and "8 bits" in expected.units:
        voxels = in_8_bits(voxels, reader.white())
    require_usual(plan, reader.name, voxels, force)
    return reader, voxels


def warn_of_header(plan: Plan, reader: Reader) -> None:
    """Say what a scan's header leaves open, as `vpt predict` does: a `HeaderWarning` at the line of one's caller's."""
    for text in reader_doubts(reader, plan):
        warnings.warn(text, HeaderWarning, stacklevel=3)


def require_usual(plan: Plan, name: str, voxels: Voxels, force: bool) -> None:
    """Raise VptError, or with `force` warn, where values do not look like those of the training."""
    expected = Expected.by(plan)
    if expected is None:
        return
    if doubt := doubt_of(values_of(voxels), expected):
        said = f"{name}: {doubt.sentence('that the model was trained on')}"
        if not force:
            raise VptError(f"{said}, or go on with --force (force=True)")
        warnings.warn(said, VptWarning, stacklevel=4)

"""Segmenters and scans to give them; a segmenter with a known answer, and what a mask must agree with its scan in."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from forwards import forward_of
from plans import plan_with
from torch import Tensor

from vpt.building import build_model
from vpt.config import Config
from vpt.data.plan import Percentiles, Plan, Window
from vpt.model import PromptedModel
from vpt.use.segmenter import Segmenter

LABELS = {0: "background", 3: "rim", 117: "core"}


def scan_plan(**changes) -> Plan:
    return plan_with(**{"image_size": 64, "intensity": (Percentiles(),), **changes})


def tiny(plan: Plan, classes: int = 3, weights: str = "random") -> tuple[PromptedModel, Config]:
    """An untrained model whose masks are not empty: the micro architecture, a few prompts, a narrow head."""
    config = Config.model_validate(
        {
            "data": {"path": "."},
            "backbone": {"name": "vit_micro", "weights": weights},
            "prompts": {"method": "deep", "count": 2},
            "head": {"kind": "mask", "width": 16, "detail": 8, "levels": 2},
        }
    )
    torch.manual_seed(0)
    return build_model(config, plan, classes).eval(), config


def image_plan(colour: bool = False, **changes) -> Plan:
    channels = ("red", "green", "blue") if colour else ("grey",)
    values = {"kind": "images", "pixel_mm": None, "neighbours": False, "channels": channels}
    return plan_with(**{**values, "image_size": 64, "intensity": (Window(low=0, high=255),) * len(channels), **changes})


def bright_disc(rows: int = 90, columns: int = 60, colour: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image, and where it is bright (in colour: red), off its centre."""
    y, x = np.mgrid[:rows, :columns]
    inside = (y - 0.3 * rows) ** 2 + (x - 0.6 * columns) ** 2 < (0.2 * min(rows, columns)) ** 2
    grey = np.where(inside, 230, 30).astype(np.uint8)
    return (np.dstack([grey, grey // 9, grey // 9]) if colour else grey), inside


def threshold(plan: Plan, labels: dict[int, str] = LABELS) -> Segmenter:
    """The model replaced by a pointwise rule, so that the right answer is known: bright voxels are the last label."""

    def rule(images: Tensor) -> Tensor:
        bright = images[:, 1 if plan.neighbours else 0] - 0.5
        return torch.stack([-bright, torch.full_like(bright, -9), bright], 1)

    return Segmenter(tiny(plan)[0], forward_of(rule), plan, labels, torch.device("cpu"), batch_size=32)


def scan(shape=(20, 18, 6), affine=None, seed=0) -> nib.Nifti1Image:
    array = np.random.default_rng(seed).normal(300, 80, shape).astype(np.int16)
    return nib.Nifti1Image(array, np.diag([1.0, 1.2, 3.0, 1.0]) if affine is None else affine)


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


def same_place(mask: nib.Nifti1Image, image: nib.Nifti1Image) -> None:
    """Everything of the header that says where voxels lie, and that the voxels are ids."""
    assert mask.shape == (*image.shape, 1, 1)[:3]
    assert np.array_equal(mask.affine, image.affine)
    for name in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
        assert np.array_equal(mask.header[name], image.header[name], equal_nan=True), name
    assert mask.header.get_xyzt_units() == image.header.get_xyzt_units()
    assert mask.header.get_zooms()[:3] == image.header.get_zooms()[:3]
    assert mask.get_data_dtype().kind in "ui"
    assert set(np.unique(voxels(mask))) <= set(LABELS)


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.nii.gz"
    array = voxels(scan()).astype(np.float32)
    if kind == "nan":
        array[1, 2, 3] = np.nan
    if kind == "4-D":
        array = np.stack([array, array], -1)
    if kind != "missing":
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    if kind == "text":
        path.write_bytes(gzip.compress(b"no scan at all" * 99))
    if kind == "empty":
        path.write_bytes(b"")
    return path

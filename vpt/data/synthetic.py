"""A small data set made on disk, for the demo and for tests: blobs in noise, on the grids that real scans come on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from vpt.errors import VptError
from vpt.files import write_json

LABELS = {"background": 0, "dark": 1, "bright": 2}


def make_dataset(root: str | Path, cases: int = 12, seed: int = 0) -> Path:
    """nnU-Net layout with a `split.json` of 2/3, 1/6, 1/6: MR-like volumes of anisotropic voxels, not all in RAS.

    Two kinds of blobs (MONAI's synthetic images), told apart by their brightness. Every third volume is stored as LPS,
    every third as PSR, one in four is rotated obliquely; intensities differ tenfold between volumes.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise VptError(f"{root}: the folder is not empty; choose another one for the synthetic data")
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = [f"blobs_{k:03d}" for k in range(cases)]
    for k, name in enumerate(names):
        image, label = _volume(rng)
        affine = _affine(rng, oblique=k % 4 == 3)
        for folder, array, suffix in (("imagesTr", image, "_0000"), ("labelsTr", label, "")):
            stored = _stored_as(nib.Nifti1Image(array, affine), ("RAS", "LPS", "PSR")[k % 3])
            nib.save(stored, root / folder / f"{name}{suffix}.nii.gz")
    write_json(
        root / "dataset.json",
        {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": cases, "file_ending": ".nii.gz"},
    )
    held = max(1, cases // 6)
    write_json(
        root / "split.json",
        {"train": names[: -2 * held], "val": names[-2 * held : -held], "test": names[-held:]},
    )
    return root


def _volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (X, Y, Z) int16 and label (X, Y, Z) uint8, Z the thick axis."""
    from monai.data import create_test_image_3d

    shape = (int(rng.integers(40, 56)), int(rng.integers(40, 56)), int(rng.integers(14, 20)))
    state = np.random.RandomState(int(rng.integers(2**31)))
    image, label = create_test_image_3d(
        *shape, num_objs=5, rad_min=4, rad_max=6, noise_max=0.25, num_seg_classes=2, random_state=state
    )  # fmt: skip
    image = image + rng.normal(0, 0.05, image.shape)
    return (image * rng.uniform(100, 1000)).astype(np.int16), label.astype(np.uint8)


def _affine(rng: np.random.Generator, oblique: bool) -> np.ndarray:
    spacing = np.array([rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2), rng.uniform(2.5, 3.5)])
    affine = np.diag([*spacing, 1.0])
    if oblique:
        angle = np.radians(rng.uniform(8, 18))
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    return affine


def _stored_as(image: nib.nifti1.Nifti1Image, axcodes: str) -> nib.nifti1.Nifti1Image:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(axcodes)))

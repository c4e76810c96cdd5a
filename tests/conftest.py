"""Fixtures that several test files share: real data, and tiny data sets written to disk.

What is heavy is imported where it is used, here and in the plugins: the process that only hands out tests needs none.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest_plugins = ["browser", "commands", "tiny_run", "tiny_classes"]

SHARED = Path(__file__).parents[2] / "shared" / "data"
LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


def pytest_collection_finish() -> None:
    """What the imports made stays: the collector of garbage need not look through it again, some hundred times."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries count at the end what was not collected


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a shell starts in the background ignores Ctrl-C; the tests that send it need Python's own handler."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> None:
    """No test ends with a power cut, so what is written need not have reached the disk."""
    os.fsync = lambda file: None


@pytest.fixture(scope="session", autouse=True)
def savefig() -> Iterator[Callable[..., None]]:
    """Pictures are small and empty, though PNG files. Take `drawn` where it matters what they show."""
    from matplotlib.figure import Figure

    real = Figure.savefig

    def save(figure: Any, *place: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        for part in (*figure.axes, *figure.legends, *figure.texts):
            part.set_visible(False)
        real(figure, *place, **options | {"dpi": 20})

    Figure.savefig = save
    yield real
    Figure.savefig = real


@pytest.fixture
def drawn(savefig: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn as for people."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: VPT_TEST_DATA, or ../shared/data beside the repository."""
    root = Path(os.environ.get("VPT_TEST_DATA", SHARED))
    if not (root / "hippocampus3d").is_dir():
        reason = f"no real data in {root}: set VPT_TEST_DATA to a folder that holds hippocampus3d/ and odd_volumes/"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return root


@pytest.fixture
def save() -> Callable[..., Path]:
    """save(path, array, affine=identity): a NIfTI, its folder made if need be."""
    import nibabel as nib

    def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def make_dataset(tmp_path: Path, save: Callable[..., Path]) -> Callable[..., Path]:
    """make_dataset("nnunet" | "msd", cases=4, channels=1, affines=(..,)): its folder; labels 1 and 2 are boxes."""

    def make(layout: str = "nnunet", cases: int = 4, channels: int = 1, affines: Sequence[np.ndarray] = (LPS,)) -> Path:
        root, rng = tmp_path / layout, np.random.default_rng(0)
        names = [f"case_{number:02d}" for number in range(cases)]
        for number, name in enumerate(names):
            label = np.zeros((12, 10, 6), np.uint8)
            label[3:8, 2:7, 1:5] = 1
            label[5:7, 4:6, 2:4] = 2
            images = [(rng.normal(100, 20, label.shape) + 50 * label).astype(np.float32) for _ in range(channels)]
            affine = affines[number % len(affines)]
            save(root / f"labelsTr/{name}.nii.gz", label, affine)
            if layout == "msd":
                image = np.stack(images, -1) if channels > 1 else images[0]
                save(root / f"imagesTr/{name}.nii.gz", image, affine)
            else:
                for channel, image in enumerate(images):
                    save(root / f"imagesTr/{name}_{channel:04d}.nii.gz", image, affine)
        numbered = {str(channel): f"MR{channel}" for channel in range(channels)}
        pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
        msd = {"modality": numbered, "labels": {"0": "background", "1": "rim", "2": "core"}, "training": pairs}
        nnunet = {"channel_names": numbered, "labels": {"background": 0, "rim": 1, "core": 2}, "file_ending": ".nii.gz"}
        root.mkdir(exist_ok=True)
        (root / "dataset.json").write_text(json.dumps(msd if layout == "msd" else nnunet))
        return root

    return make


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """make_images(cases=4, colour=False, size=(24, 20), name="images2d"): images/ and masks/ of PNGs, and its folder.

    Masks are 0 and 255; the last one is empty. The foreground is a bright box, redder than its surroundings in colour.
    """

    from PIL import Image

    def make(cases: int = 4, colour: bool = False, size: tuple[int, int] = (24, 20), name: str = "images2d") -> Path:
        root, rng = tmp_path / name, np.random.default_rng(0)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for number in range(cases):
            mask = np.zeros(size, np.uint8)
            if number < cases - 1:
                mask[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] * 3 // 4] = 255
            image = rng.integers(20, 90, (*size, 3) if colour else size) + (mask > 0).reshape(
                (*size, 1) if colour else size
            ) * np.array([150, 60, 0] if colour else 150)
            Image.fromarray(image.astype(np.uint8)).save(root / f"images/case_{number:02d}.png")
            Image.fromarray(mask).save(root / f"masks/case_{number:02d}.png")
        return root

    return make

"""The walk of a slice from its file to its Dice, as docs/design.md draws it: no room is come back to more than once."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import LABELS, scan_plan, tiny

import vpt
from vpt.backbones.tokens import Features, Tokens
from vpt.machine.device import choose_device
from vpt.readers import LabelMap, Voxels
from vpt.use.archives import save_labels
from vpt.use.evaluation.scoring import evaluate
from vpt.use.prepared_scan import PreparedScan
from vpt.use.segmenter import Segmenter

PACKAGE = Path(vpt.__file__).parent
FORMS = (np.ndarray, torch.Tensor, nib.Nifti1Image, Voxels, LabelMap, PreparedScan, Tokens, Features)
TOOLS = {"errors", "words", "vocabulary", "files", "progress", "versions", "machine"}  # carried, not walked to


def room_of(frame: FrameType | None) -> str:
    """The room whose code a frame runs; "" for libraries and the test."""
    file = Path(frame.f_code.co_filename) if frame else Path()
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py") if file.is_relative_to(PACKAGE) else ""


def caller_of(frame: FrameType) -> str:
    """The room that called, be it through a library (a decorator, a module's `__call__`)."""
    above = frame.f_back
    while above is not None and not room_of(above):
        above = above.f_back
    return room_of(above)


def carries(value: Any) -> bool:
    """Whether a value is the slice, in one of its forms."""
    if isinstance(value, list | tuple | dict):
        return any(map(carries, value.values() if isinstance(value, dict) else value))
    return isinstance(value, FORMS)


@contextmanager
def visits(conductor: str) -> Iterator[list[str]]:
    """The rooms to which the code of `conductor` gives the slice, or from which it gets it, one after the other."""
    found: list[str] = []

    def note(frame: FrameType, event: str, result: Any) -> None:
        if event == "return" and room_of(frame) not in {"", conductor, *TOOLS} and caller_of(frame) == conductor:
            taken = inspect.getargvalues(frame)
            names = [*taken.args, *filter(None, (taken.varargs, taken.keywords))]
            if carries(result) or any(carries(taken.locals.get(name)) for name in names):
                found.append(room_of(frame))

    before = sys.getprofile()
    threading.setprofile(note)  # cases are scored in threads
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def walk(found: list[str], *conductors: str) -> list[str]:
    """Without what is no room to walk to, each stay once."""
    return [room for room, _ in groupby(room for room in found if room and room not in {*conductors, *TOOLS})]


@pytest.fixture(scope="module")
def slice_file(tmp_path_factory) -> Path:
    """A scan of one slice."""
    path = tmp_path_factory.mktemp("walk") / "slice.nii.gz"
    grey = np.random.default_rng(0).normal(100, 20, (40, 30, 1)).astype(np.float32)
    nib.save(nib.Nifti1Image(grey, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    model, _ = tiny(scan_plan())
    return Segmenter.from_model(model, scan_plan(), LABELS, choose_device("cpu"))


@pytest.mark.slow
def test_from_the_file_to_the_dice_no_room_is_come_back_to_more_than_once(slice_file, segmenter, tmp_path):
    with visits("use") as found:
        mask = segmenter.segment(slice_file)
        save_labels(tmp_path / "mask.nii.gz", mask)
        report = evaluate(tmp_path / "mask.nii.gz", tmp_path / "mask.nii.gz", LABELS)
    assert report.text()
    rooms = walk(found, "use")
    assert rooms == ["readers", "data", "tasks", "readers", "data", "scores"]
    assert max(Counter(rooms).values()) == 2  # left once for good, come back to once at most


def test_inside_the_task_the_slice_is_framed_goes_through_the_model_and_comes_back(slice_file, segmenter):
    with visits("tasks") as found:
        segmenter.segment(slice_file)
    assert walk(found, "tasks", "use") == ["data", "model", "data"]  # `use` wraps the model in its precision


def test_inside_the_model_it_goes_through_the_encoder_with_its_prompts_then_to_the_head(slice_file, segmenter):
    with visits("model") as found:
        segmenter.segment(slice_file)
    rooms = walk(found, "model")
    assert rooms[-1] == "heads"
    assert set(rooms[:-1]) == {"prompts", "backbones"}

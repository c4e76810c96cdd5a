"""Several models as one: the mean of their probabilities, one encoder, and refusals of what cannot be averaged."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import LABELS, scan, scan_plan, tiny, voxels
from tiny_classes import stripes

from vpt.artifact import read_artifact, save_artifact
from vpt.backbones import load_backbone
from vpt.data.plan import Plan, Window
from vpt.errors import VptError, VptWarning
from vpt.restoring import load_trained, restore_model
from vpt.use.classifier import Classifier
from vpt.use.ensembles import ClassifierEnsemble, SegmenterEnsemble
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

WINDOW = (Window(low=0, high=600),)


def trained(path: Path, seed: int, plan: Plan, labels: dict[int, str] = LABELS) -> Path:
    """An artifact on the common encoder, with prompts and a head of its own."""
    model, config = tiny(plan, len(labels), weights="random")
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_artifact(path, model, config=config, plan=plan, labels=labels, scores={})
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """Three of one encoder; the last looks through another window, as a fold may."""
    folder = tmp_path_factory.mktemp("models")
    plans = [scan_plan(intensity=WINDOW)] * 2 + [scan_plan(intensity=(Window(low=50, high=500),))]
    return [trained(folder / f"{seed}.safetensors", seed, plan) for seed, plan in enumerate(plans)]


@pytest.fixture(scope="module")
def ensemble(models) -> SegmenterEnsemble:
    found = load(models, "cpu", precision="32-true")
    assert isinstance(found, SegmenterEnsemble)
    return found


def probabilities(segmenter: Segmenter, given: nib.Nifti1Image) -> torch.Tensor:
    """(slices, K, rows, columns)."""
    return torch.stack(list(segmenter.probabilities_of(segmenter.prepare(given))))


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_models_probabilities(models, ensemble):
    given = scan()
    alone = [load(model, "cpu", precision="32-true") for model in models]
    apart = [probabilities(model, given) for model in alone]
    mean = torch.stack(apart).mean(0)
    assert (apart[0] - apart[1]).abs().max() > 0.01  # models that differ
    assert (probabilities(ensemble, given) - mean).abs().max() < 1e-5
    masks = [voxels(model.segment(given)) for model in (*alone, ensemble)]
    assert not any(np.array_equal(masks[-1], mask) for mask in masks[:-1])
    ids = np.array(sorted(LABELS))[mean.argmax(1).numpy()]  # (Z, Y, X) as SPL; the scan is RAS
    assert (ids.transpose(2, 1, 0)[::-1, ::-1] == masks[-1]).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_models_of_other_pixels_and_sizes_see_a_scan_through_their_own(models, tmp_path, turned):
    others = [
        trained(tmp_path / "wide.safetensors", 5, scan_plan(intensity=WINDOW, image_size=96, pixel_mm=0.7)),
        trained(tmp_path / "whole.safetensors", 6, scan_plan(intensity=WINDOW, pixel_mm=None, planes="all")),
    ]
    paths = [*others, models[0]] if turned else [models[0], *others]
    given = scan((20, 18, 12))
    apart = [probabilities(load(path, "cpu", precision="32-true"), given) for path in paths]
    together = load(paths, "cpu", precision="32-true")
    assert (apart[0] - apart[1]).abs().max() > 0.01
    assert (probabilities(together, given) - torch.stack(apart).mean(0)).abs().max() < 1e-5
    mask, quality = together.segment_with_quality(given)
    assert np.array_equal(voxels(mask), voxels(together.segment(given)))
    assert 0 <= quality.whole.agreement < 1  # one model alone finds a label


@pytest.mark.slow
def test_one_model_alone_is_the_model_bit_for_bit(models):
    one, alone, given = load([models[0]], "cpu"), load(models[0], "cpu"), scan()
    assert type(one) is Segmenter
    assert np.array_equal(voxels(one.segment(given)), voxels(alone.segment(given)))
    assert torch.equal(probabilities(one, given), probabilities(alone, given))


def test_models_share_the_encoder_that_they_leave_frozen(models, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "vpt.building.load_backbone",
        lambda name, **how: loaded.append(name) or load_backbone(name, **how),
    )
    monkeypatch.setattr("vpt.building._loaded", {})
    together = load(models, "cpu", precision="32-true")
    assert loaded == ["vit_micro"]
    assert len({id(member.model.backbone) for member in together.members}) == 1


@pytest.mark.parametrize(
    ("changes", "labels", "said"),
    [
        ({"crop": "foreground"}, LABELS, "plan.crop foreground against none"),
        ({}, {0: "background", 3: "rim", 118: "core"}, "labels 118 core against 117 core;"),
        ({}, {0: "background", 3: "rim"}, "labels none against 117 core;"),
    ],
)
def test_models_that_do_not_agree_are_refused_by_name(models, tmp_path, changes, labels, said):
    other = trained(tmp_path / "other.safetensors", 0, scan_plan(intensity=WINDOW, **changes), labels)
    with pytest.raises(VptError, match=rf"other.safetensors and .*0.safetensors cannot be averaged: {said}"):
        load([models[0], other], "cpu")


def test_no_model_is_refused():
    with pytest.raises(VptError, match="no model; give"):
        load([], "cpu")


@pytest.mark.slow
def test_classifiers_are_averaged_too(class_run, tmp_path):
    artifact, other = read_artifact(class_run), tmp_path / "other.safetensors"
    model = restore_model(artifact)
    load_trained(model, {name: tensor * 1.5 for name, tensor in artifact.tensors.items()}, artifact.path)
    save_artifact(
        other, model, config=artifact.config, plan=artifact.plan, labels=artifact.labels, scores={}, temperature=0.5
    )
    image = stripes(1, 3)
    alone = [load(model, "cpu", precision="32-true").classify(image) for model in (class_run, other)]
    together = load([class_run, other], "cpu", precision="32-true")
    assert isinstance(together, ClassifierEnsemble)
    found = together.classify(image)
    assert alone[0] != alone[1]
    assert found == pytest.approx({name: (p + alone[1][name]) / 2 for name, p in alone[0].items()}, abs=1e-5)
    assert type(load([class_run], "cpu")) is Classifier


def test_a_classifier_and_a_segmenter_are_no_ensemble(models, class_run):
    with pytest.raises(VptError, match="task classification against segmentation"):
        load([models[0], class_run], "cpu")


@pytest.mark.slow
def test_a_model_that_is_given_twice_is_told(models, recwarn):
    load([models[0], models[1]], "cpu")
    assert not [each for each in recwarn if "the same trained numbers" in str(each.message)]

    with pytest.warns(VptWarning, match=r"0\.safetensors: the same trained numbers as .*0\.safetensors, .* give each"):
        load([models[0], models[1], models[0]], "cpu")

"""New images and volumes classified as in training, whatever they are given as, one by one or many at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_classes import CLASSES, ONE_CLASS_STEP, stripes

import vpt
from vpt.artifact import read_artifact, save_artifact
from vpt.building import build_model
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.restoring import load_trained, restore_model
from vpt.tasks.batch import Batch
from vpt.use.classifier import Classifier
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def classifier(class_run: Path) -> Classifier:
    found = load(class_run, "cpu", precision="32-true")
    assert isinstance(found, Classifier)
    return found


@pytest.fixture(scope="module")
def of_scans(scan_run: Path) -> Classifier:
    found = load(scan_run, "cpu", precision="32-true")
    assert isinstance(found, Classifier)
    return found


# --- what a scan may be -----------------------------------------------------------------------------------------------


def test_a_path_its_text_and_its_pixels_have_the_same_probabilities(classifier: Classifier, tiny_classes: Path) -> None:
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK, the extra itk, is not installed")
    path = tiny_classes / "lying" / "im6.png"
    found = classifier.classify(path)
    assert list(found) == list(CLASSES)
    assert sum(found.values()) == pytest.approx(1)
    flat = itk.ReadImage(str(path))  # two dimensions
    for same in (str(path), np.asarray(Image.open(path)), flat):
        assert classifier.classify(same) == found
    assert classifier.classify([flat, path]) == [pytest.approx(found, abs=1e-6)] * 2
    assert classifier.classify(tiny_classes / "standing" / "im6.png") != found


def test_a_volume_is_a_path_or_a_nibabel_image(of_scans: Classifier, tiny_scans: Path) -> None:
    path = tiny_scans / "ill" / "scan1.nii.gz"
    found = of_scans.classify(path)
    assert list(found) == ["ill", "well"]
    assert sum(found.values()) == pytest.approx(1)
    assert of_scans.classify(nib.load(path)) == found
    assert of_scans.classify([path, nib.load(path)]) == [pytest.approx(found, abs=1e-6)] * 2


def test_a_volume_in_another_orientation_has_the_same_probabilities(of_scans: Classifier, tiny_scans: Path) -> None:
    scan = nib.load(tiny_scans / "ill" / "scan1.nii.gz")
    turned = scan.as_reoriented(np.array([[1, 1], [2, -1], [0, -1]]))
    assert turned.shape != scan.shape
    assert of_scans.classify(turned) == of_scans.classify(scan)


def test_several_labels_have_a_probability_each(label_run: Path, tiny_labels: Path) -> None:
    found = load(label_run, "cpu").classify(tiny_labels / "im08.png")
    assert list(found) == ["lying", "standing"]
    assert all(0 < p < 1 for p in found.values())
    logits = load(label_run, "cpu")
    stack = torch.from_numpy(logits.prepare(tiny_labels / "im08.png")[None].astype(np.float32) / 255)
    with torch.inference_mode():
        expected = logits.forward(Batch(images=stack)).logits[0].sigmoid()
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.slow
def test_grades_have_one_more_probability_than_questions(grade_run: Path) -> None:
    found = load(grade_run, "cpu").classify(stripes(0, 0))
    assert list(found) == ["0", "1", "2"]
    assert sum(found.values()) == pytest.approx(1)


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_many_at_once_equal_one_by_one(
    kind: str, classifier: Classifier, of_scans: Classifier, tiny_classes: Path, tiny_scans: Path
) -> None:
    chosen, root = (classifier, tiny_classes) if kind == "images" else (of_scans, tiny_scans)
    paths = sorted(root.rglob("*.png" if kind == "images" else "*.nii.gz"))
    together = chosen.probabilities([chosen.prepare(path) for path in paths])
    alone = np.array([list(chosen.classify(path).values()) for path in paths])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(alone[:, 0].round(5))) > 4  # not all the same


def test_no_state_is_kept_between_scans(classifier: Classifier) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    first = classifier.classify(stripes(1, 0))
    classifier.classify(stripes(2, 0))
    assert classifier.classify(stripes(1, 0)) == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.model.state_dict().items())


# --- the artifact -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("which", ["class_run", "scan_run", "grade_run"])
def test_an_artifact_saved_and_loaded_gives_identical_probabilities(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(which)
    artifact = read_artifact(run)
    model = restore_model(artifact)
    path = tmp_path / "again.safetensors"
    told = {"config": artifact.config, "plan": artifact.plan, "labels": artifact.labels, "scores": artifact.scores}
    save_artifact(path, model, **told, temperature=1.5)
    scan = nib.Nifti1Image(np.random.default_rng(0).normal(100, 10, (9, 9, 5)).astype(np.float32), np.eye(4))
    given = scan if which == "scan_run" else stripes(1, 9)
    first = load(run, "cpu")
    first.temperature = 1.5
    assert load(path, "cpu").classify(given) == first.classify(given)
    assert replace(read_artifact(path), path=run, tensors={}) == replace(
        read_artifact(run), path=read_artifact(run).path.parent, tensors={}, temperature=1.5
    )
    ours, theirs = load_file(path), load_file(run / "best.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_was_trained_in_memory_is_what_is_loaded(class_run: Path, classifier: Classifier) -> None:
    """A model built anew from the config, with the tensors of the file: nothing else is needed."""
    artifact = read_artifact(class_run)
    model = build_model(artifact.config, artifact.plan, len(CLASSES))
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(1.0)
    load_trained(model, artifact.tensors, artifact.path)
    rebuilt = Classifier.from_model(model, artifact.plan, CLASSES, "classes", CPU)
    assert rebuilt.classify(stripes(2, 1)) == classifier.classify(stripes(2, 1))


def test_a_temperature_divides_the_logits(class_run: Path) -> None:
    plain, warm = load(class_run, "cpu"), load(class_run, "cpu")
    warm.temperature = 3.0
    logits = np.log(list(plain.classify(stripes(1, 0)).values()))
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum()
    assert list(warm.classify(stripes(1, 0)).values()) == pytest.approx(expected, rel=1e-6)


def test_an_artifact_alone_is_enough(class_run: Path, classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes((class_run / "best.safetensors").read_bytes())
    assert vpt.load(path, device="cpu", precision="32-true").classify(stripes(0, 9)) == classifier.classify(
        stripes(0, 9)
    )


# --- the wrong use ----------------------------------------------------------------------------------------------------


def test_a_run_is_loaded_as_what_it_was_trained_for(class_run: Path, tiny_run: Path) -> None:
    assert isinstance(load(class_run, "cpu"), Classifier)
    assert isinstance(load(tiny_run, "cpu"), Segmenter)


def test_volumes_are_not_given_to_a_model_of_images_nor_the_other_way_round(
    classifier: Classifier, of_scans: Classifier, tiny_classes: Path, tiny_scans: Path
) -> None:
    path = tiny_scans / "ill" / "scan1.nii.gz"
    with pytest.raises(VptError, match=r"scan1\.nii\.gz: a volume, but the model was trained on images"):
        classifier.classify(path)
    with pytest.raises(VptError, match="a Nifti1Image: a volume, but the model was trained on images"):
        classifier.classify(nib.load(path))
    flat = tiny_classes / "flat" / "im0.png"
    with pytest.raises(VptError, match=r"scan1\.nii\.gz: a volume, but the model was trained on images"):
        classifier.classify([flat, path])
    with pytest.raises(VptError, match=r"im0\.png: an image, but the model was trained on NIfTI volumes"):
        of_scans.classify(tiny_classes / "flat" / "im0.png")
    with pytest.raises(VptError, match=r"an array of shape .* says no spacing"):
        of_scans.classify(stripes(0, 0))


def test_what_cannot_be_read_is_said(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"no\.png: no such file"):
        classifier.classify(tmp_path / "no.png")
    with pytest.raises(VptError, match="a colour image, expected grey"):
        classifier.classify(np.full((8, 8, 3), (200, 10, 10), np.uint8))


@pytest.mark.slow
def test_another_backbone_than_that_of_the_training_is_refused(tiny_classes: Path, tmp_path: Path) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | {"backbone.weights": "random"}, brief=True)
    from vpt.backbones.vit_models import MICRO_WEIGHTS

    with pytest.raises(VptError, match="give the weights it was trained on with --weights FILE"):
        load(run, "cpu", weights=MICRO_WEIGHTS)

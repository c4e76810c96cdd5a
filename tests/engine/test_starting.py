"""A run that goes on from an artifact: it starts as that answers, in its plan, on its encoder, and says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_classes import CLASS_SETTINGS
from tiny_run import ONE_STEP, SETTINGS, assert_same_run

from vpt.artifact import read_artifact, save_artifact
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.describe import describe
from vpt.engine.classifying import Classifying
from vpt.engine.ranks import Ranks
from vpt.engine.run import train
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import Setup, prepare_setup
from vpt.engine.signals import Interrupted
from vpt.engine.starting import adapted_model, adopt, start_in_words
from vpt.errors import VptError
from vpt.model import Output, PromptedModel
from vpt.restoring import restore_model
from vpt.tasks.held import filled
from vpt.tasks.partly import over_annotated
from vpt.tasks.segmentation import dice_ce

PLAN = Plan(
    plane="axial", pixel_mm=1.0, image_size=32, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip
OWN = {key: value for key, value in SETTINGS.items() if key not in ("prompts", "plan.image_size")}


@pytest.fixture(scope="module")
def further(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data with bright as 1, dark as 3, and a corner of each scan as 2, edge. Read only."""
    root = shutil.copytree(tiny_data, tmp_path_factory.mktemp("further") / "site")
    for path in (root / "labelsTr").iterdir():
        image: Any = nib.load(path)
        label = np.array([0, 3, 1], np.uint8)[np.asarray(image.dataobj)]
        label[:6, :6] = 2
        nib.save(nib.Nifti1Image(label, image.affine), path)
    return describe_labels(root, background=0, bright=1, edge=2, dark=3)


def describe_labels(root: Path, **labels: int) -> Path:
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
    return root


@pytest.fixture
def site(further: Path, tmp_path: Path) -> Path:
    return shutil.copytree(further, tmp_path / "site")


def setup_of(data: Path, start: Path, **changes: Any) -> Setup:
    return prepare_setup(load_config(data, OWN | {"start": str(start)} | changes))


def assert_answered_alike(model: PromptedModel, rows: list[int], before: PromptedModel) -> None:
    """Bit for bit what enters the layer of the classes, and its numbers of these rows.

    How their products are rounded depends on the number of rows on some processors, so they are compared as rounded.
    """
    images, entering = torch.randn(2, 3, 32, 32), []
    for each in (model.eval(), before):
        hook = each.head.classify.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
        entering.append(each(images).detach())
        hook.remove()
    (features, now, expected_features, expected) = entering
    assert torch.equal(features, expected_features)
    for name, tensor in before.head.classify.state_dict().items():
        assert torch.equal(model.head.classify.state_dict()[name][rows], tensor)
    assert (now[:, rows] - expected).abs().max() <= 1e-6 * expected.abs().max()


# --- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_before_the_first_step_old_labels_are_answered_as_the_artifact_does(
    tiny_run: Path, further: Path, tmp_path: Path
) -> None:
    setup = setup_of(further, tiny_run)
    job = Segmenting(tmp_path / "run", setup, tmp_path / "cache")
    job.prepare()
    artifact = read_artifact(tiny_run)
    assert list(setup.dataset.labels.values()) == ["background", "bright", "edge", "dark"]
    assert_answered_alike(job.model, [0, 3, 1], restore_model(artifact))
    assert setup.plan.model_dump(exclude={"reasons"}) == artifact.plan.model_dump(exclude={"reasons"})
    assert {name for name, p in job.model.named_parameters() if p.requires_grad} == {*artifact.tensors}
    said = f"starts from {tiny_run / 'best.safetensors'}: bright, dark as learned there; edge anew"
    assert job.starts() == [said]
    other = replace(setup.dataset, channels=("CT",))
    assert start_in_words(artifact, other) == f"{said}; reads CT as the artifact read MRI"


@pytest.mark.slow
def test_the_same_labels_start_with_all_that_was_learned(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    job = Segmenting(tmp_path / "run", setup_of(tiny_data, tiny_run), tmp_path / "cache")
    job.prepare()
    tensors = read_artifact(tiny_run).tensors
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in job.model.trained_state().items())


@pytest.mark.slow
def test_the_artifact_annotates_its_labels_that_no_case_has(tiny_run: Path, site: Path, tmp_path: Path) -> None:
    start = shutil.copy(tiny_run / "best.safetensors", tmp_path / "start.safetensors")
    lacking = {"data.labels": {"edge": 2, "background": ["bright", "dark"]}}
    setup = setup_of(site, Path(start), **lacking)
    job = Segmenting(tmp_path / "run", setup, tmp_path / "cache")
    job.prepare()
    batch = torch.utils.data.default_collate([job.dataset[draw] for draw in job.draw(0)[0]])
    logits = job.on_images()(batch).logits.detach()
    answers = restore_model(read_artifact(tiny_run))(job.normalise()(batch["images"])).argmax(1)
    expected = over_annotated(dice_ce())(Output(logits), filled(batch, answers, {2: 1, 3: 2}))
    assert (answers > 0).any()
    assert float(job.loss(Output(logits), batch)) == pytest.approx(float(expected), abs=1e-5)
    several = Segmenting(tmp_path / "run", setup, tmp_path / "cache", Ranks(0, 2))
    several.loss = job.loss
    with pytest.raises(VptError, match="dark: annotated by the artifact, which one process alone has to do"):
        several._holding(["dark"])
    Path(start).unlink()
    again = Segmenting(tmp_path / "run", replace(setup, start=None), tmp_path / "cache")
    with pytest.raises(VptError, match=r"start.safetensors: no such file or folder"):
        again.prepare(start=False)


def test_what_the_data_lack_is_dropped_and_said(tiny_run: Path, copied_data: Path, tmp_path: Path) -> None:
    merged = {"data.labels": {"dark": ["dark", "bright"]}, "start": {"path": str(tiny_run), "kept": []}}
    setup = prepare_setup(load_config(copied_data, OWN | merged))
    job = Segmenting(tmp_path / "run", setup, tmp_path / "cache")
    assert job.starts()[0].endswith("dark as learned there; bright dropped, since the data do not have it")


@pytest.mark.slow
def test_old_labels_stay_as_labels_that_no_case_is_annotated_for(tiny_run: Path, site: Path, tmp_path: Path) -> None:
    setup = setup_of(site, tiny_run, **{"data.labels": {"edge": 2, "background": ["bright", "dark"]}})
    assert setup.dataset.labels == {0: "background", 2: "edge", 4: "dark", 5: "bright"}
    job = Segmenting(tmp_path / "run", setup, tmp_path / "cache")
    job.prepare()
    assert_answered_alike(job.model, [0, 2, 3], restore_model(read_artifact(tiny_run)))
    said = job.starts()[0]
    assert said.endswith("dark, bright as learned there, though no case is annotated for it; edge anew")
    assert setup.config.start.kept == ("dark", "bright")
    assert "bright: no training case is annotated for it, so the artifact annotates it" in job.doubts()
    assert job.dataset[job.draw(0)[0][0]]["annotated"].tolist() == [True, True, False, False]
    with pytest.raises(VptError, match=r"'shade' is no label of .*, whose are dark, bright; correct it"):
        adopt(load_config(site, {"start": {"path": str(tiny_run), "kept": ["shade"]}}))


@pytest.mark.slow
def test_a_run_from_an_artifact_says_so_and_is_loaded_as_it_was_saved(
    tiny_run: Path, further: Path, tmp_path: Path
) -> None:
    one = {key: ONE_STEP[key] for key in ("train.epochs", "train.max_steps")}
    run = train(further, tmp_path / "run", overrides=OWN | one, start=tiny_run)
    artifact, start = read_artifact(run), read_artifact(tiny_run)
    assert restore_model(artifact).trained_state().keys() == start.tensors.keys()
    assert artifact.backbone_sha256 == start.backbone_sha256
    digest = artifact.config.start.sha256
    said = f"{tiny_run / 'best.safetensors'}, SHA-256 {digest}"
    assert ("started from", said) in describe(str(run))
    assert said in (run / "model_card.md").read_text()
    assert json.loads((run / "environment.json").read_text())["start"] == {
        "path": str(tiny_run / "best.safetensors"),
        "sha256": digest,
    }
    assert "edge anew" in (run / "train.log").read_text()
    assert "started from" not in dict(describe(str(tiny_run)))


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_end_also_without_the_artifact(
    tiny_run: Path, further: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    start = shutil.copy(tiny_run / "best.safetensors", tmp_path / "start.safetensors")
    whole = train(further, tmp_path / "whole", overrides=OWN, start=start)
    signal_at(4)
    with pytest.raises(Interrupted):
        train(further, tmp_path / "run", overrides=OWN, start=start)
    Path(start).unlink()
    assert_same_run(train(None, tmp_path / "run", resume=True), whole)
    with pytest.raises(VptError, match="goes on from its own state; leave it out"):
        train(None, tmp_path / "run", resume=True, start=tiny_run)


@pytest.mark.slow
def test_a_classifier_goes_on_with_further_classes_in_any_order(class_run: Path, tmp_path: Path) -> None:
    source = Path(read_artifact(class_run).config.data.path)
    data = tmp_path / "stripes"
    for new, old in (("another", "flat"), ("lying", "lying"), ("standing", "standing")):
        shutil.copytree(source / old, data / new)
    own = {key: value for key, value in CLASS_SETTINGS.items() if key not in ("prompts", "plan.image_size")}
    setup = prepare_setup(load_config(data, own | {"start.path": str(class_run)}))
    job = Classifying(tmp_path / "run", setup, tmp_path / "cache")
    job.prepare()
    images = torch.randn(2, 3, 32, 32)
    before, now = restore_model(read_artifact(class_run))(images), job.model.eval()(images)
    torch.testing.assert_close(now[:, 1:], before[:, 1:], rtol=0, atol=1e-6)
    assert job.starts()[0].endswith(
        "lying, standing as learned there; another anew; flat dropped, since the data do not have it"
    )


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": {"method": "shallow", "count": 4}}, r"prompts.method=shallow \(there deep\)"),
        ({"prompts": {"method": "deep", "count": 8}}, r"prompts.count=8 \(there 4\)"),
        ({"head": {"kind": "mask", "width": 32}}, r"head.width=32 \(there 64\)"),
        ({"head": "sam_decoder"}, r"head.kind=sam_decoder \(there mask\)"),
        ({"tuning": "lora"}, r"tuning.method=lora \(there prompts\)"),
        ({"backbone.name": "sam_micro"}, r"backbone.name=sam_micro \(there vit_micro\)"),
        ({"plan.image_size": 64}, r"plan.image_size=64 \(there 32\)"),
        ({"plan.window": [0, 80]}, r"plan.window=\(0.0, 80.0\) \(there None\)"),
        ({"task": "classification"}, r"task=classification \(there segmentation\)"),
    ],
)
def test_settings_against_the_artifact_are_refused_by_name(
    tiny_run: Path, tiny_data: Path, changes: dict[str, Any], said: str
) -> None:
    config = load_config(tiny_data, {"start": str(tiny_run)} | changes)
    with pytest.raises(VptError, match=f"{said}.* the artifact that the run starts from"):
        adopt(config)


def test_data_of_the_other_task_are_refused(tiny_run: Path, tiny_classes: Path) -> None:
    with pytest.raises(VptError, match="has classes, but the artifact that the run starts from is for segmentation"):
        adopt(load_config(tiny_classes, {"start": str(tiny_run)}))


def test_settings_that_agree_or_are_of_the_training_are_taken(tiny_run: Path, tiny_data: Path) -> None:
    settings = {"plan.image_size": 32, "prompts": {"method": "deep", "count": 4}, "optim.lr": 1e-3}
    config, _ = adopt(load_config(tiny_data, {"start": str(tiny_run), "plan.sampling": "by_label"} | settings))
    assert (config.optim.lr, config.prompts.dropout, config.plan.sampling) == (1e-3, 0.1, "by_label")


def test_another_encoder_is_refused(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    job = Segmenting(tmp_path / "run", setup_of(tiny_data, tiny_run, **{"backbone.weights": "random"}), tmp_path / "c")
    with pytest.raises(VptError, match=r"trained on vit_micro with weights of SHA-256 .*, found .* in random"):
        job.prepare()


def test_another_artifact_than_that_of_the_hash_is_refused(tiny_run: Path, tiny_data: Path) -> None:
    config = load_config(tiny_data, {"start": {"path": str(tiny_run), "sha256": "0" * 64}})
    with pytest.raises(VptError, match=r"SHA-256 .*, expected 0000000000000000\.\.\.; give that one"):
        adopt(config)


def test_a_label_that_is_only_written_otherwise_is_refused(tiny_run: Path, site: Path, tmp_path: Path) -> None:
    describe_labels(site, background=0, Bright=1, edge=2, dark=3)
    job = Segmenting(tmp_path / "run", setup_of(site, tiny_run), tmp_path / "cache")
    with pytest.raises(VptError, match="knows the label 'bright', the data 'Bright', which would be another one"):
        job.prepare()


def test_cases_that_the_artifact_learned_from_do_not_test_the_run(
    tiny_run: Path, copied_data: Path, tiny_data: Path
) -> None:
    with pytest.raises(VptError, match=r"was trained on \d of the cases that would validate or test"):
        setup_of(tiny_data, tiny_run, **{"data.fold": 0})
    assert setup_of(copied_data, tiny_run, **{"data.fold": 0}).splits.val  # other data, whatever their names


def test_channels_kinds_and_values_have_to_fit_the_plan(
    tiny_run: Path, copied_data: Path, make_dataset: Callable[..., Path], make_images: Callable[..., Path]
) -> None:
    with pytest.raises(VptError, match=r"2 channels \(MR0, MR1\), but .* plan is kept, and it has 1 \(MRI\)"):
        setup_of(make_dataset(channels=2), tiny_run)
    with pytest.raises(VptError, match=r"images, but the run goes on from an artifact, .* for volumes; start anew"):
        setup_of(make_images(), tiny_run)
    for path in (copied_data / "imagesTr").iterdir():
        image: Any = nib.load(path)
        nib.save(nib.Nifti1Image((np.asarray(image.dataobj) > 300).astype(np.int16), image.affine), path)
    with pytest.raises(
        VptError, match=r"do not look like the values that the artifact was trained on .* or start anew"
    ):
        setup_of(copied_data, tiny_run)


def test_a_comparison_starts_anew(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    from vpt.engine.compare import compare

    with pytest.raises(VptError, match="every method is compared from its own start"):
        compare(load_config(tiny_data, {"start": str(tiny_run)}), tmp_path / "compared")


@pytest.mark.parametrize("tuning", ["full", pytest.param("lora", marks=pytest.mark.slow), "ssf"])
def test_tuned_parts_go_on_and_only_they_train(tuning: str, tmp_path: Path) -> None:
    labels = {0: "background", 1: "dark"}
    settings = {"data": {"path": str(tmp_path)}, "prompts": "none", "tuning": tuning}
    config = load_config(settings).resolved("segmentation")
    model = build_model(config, PLAN, len(labels))
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.01)
    save_artifact(tmp_path / "a.safetensors", model, config=config, plan=PLAN, labels=labels, scores={})
    artifact = read_artifact(tmp_path / "a.safetensors")
    found = adapted_model(artifact, artifact.config, PLAN, {0: "background", 1: "edge", 2: "dark"})
    assert found.trained().keys() == model.trained().keys()
    before, now = model.trained_state(), found.trained_state()
    assert all(torch.equal(now[name], before[name]) for name in before if name.startswith("backbone."))
    assert found.count_parameters()["backbone"] == model.count_parameters()["backbone"] > 0

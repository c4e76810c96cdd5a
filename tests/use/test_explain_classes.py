"""Runs with prompts of classes, as a user trains them: they answer, are compared, go on, and say where they look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_classes import ONE_CLASS_STEP
from tiny_run import ONE_STEP

import vpt
from vpt.artifact import read_artifact
from vpt.config import load_config
from vpt.engine.compare import Comparison
from vpt.engine.methods import choose_methods
from vpt.engine.run import train
from vpt.engine.setup import read_data
from vpt.engine.starting import adapted_model
from vpt.engine.trial import Trial
from vpt.errors import VptError
from vpt.explaining import SHARES
from vpt.readers import reader_of
from vpt.restoring import restore_model
from vpt.use.explain import explain
from vpt.use.explain_classes import ClassExplanation

STORED = {"train.augment": "none", "precision": "32-true"}
SCORED = ONE_CLASS_STEP | STORED | {"prompts": "class_prompts"}
MASKED = ONE_STEP | STORED | {"train.views": 1, "prompts": {"method": "class_queries", "count": 2, "last": 2}}


@pytest.fixture(scope="module")
def scored(tiny_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_classes, tmp_path_factory.mktemp("scored") / "run", overrides=SCORED)


@pytest.fixture(scope="module")
def masked(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_data, tmp_path_factory.mktemp("masked") / "run", overrides=MASKED)


def image_of(tiny_classes: Path) -> Path:
    return sorted(tiny_classes.rglob("*.png"))[0]


@pytest.mark.slow
def test_an_image_is_told_by_the_likeliest_classes(scored: Path, tiny_classes: Path, tmp_path: Path) -> None:
    answers = vpt.load(scored, precision="32-true").classify(image_of(tiny_classes))
    found = explain(scored, image_of(tiny_classes))

    best = sorted(answers, key=lambda name: -answers[name])
    assert [each.name for each in found.maps] == best[:2]
    assert [each.probability for each in found.maps] == pytest.approx([answers[name] for name in best[:2]], abs=1e-4)
    assert found.maps[0].heads.shape == (4, 4, 4)
    assert np.allclose(found.maps[0].heads.mean(0), found.maps[0].map, atol=1e-6)
    assert not np.allclose(found.maps[0].map, found.maps[1].map)
    assert [each.share for each in found.hidden] == list(SHARES)
    assert found.hidden[0].most_attending == pytest.approx(found.score, abs=1e-5)
    page, facts, maps = found.save(tmp_path)
    assert page.read_text().count("% a patch") == 2 * 5  # four heads and their mean
    assert json.loads(facts.read_text())["maps"] == "attention"
    assert set(np.load(maps)) == {"map_0", "map_1", "heads_0", "heads_1", "evidence_0", "evidence_1"}
    assert found.maps[0].evidence is not None
    assert found.maps[0].evidence.shape == (4, 4)
    assert [each.share for each in found.hidden_by_evidence or ()] == list(SHARES)
    assert page.read_text().count('<th scope="col">evidence</th>') == 1


@pytest.mark.slow
def test_prompts_of_classes_have_no_patches_near_to_them(scored: Path, tiny_classes: Path) -> None:
    image = sorted(tiny_classes.rglob("*.png"))[0]
    with pytest.raises(VptError, match="prompts of classes ask the patches and are not asked by them"):
        explain(scored, image, images=3)
    assert isinstance(explain(scored, image, images=None), ClassExplanation)


def test_a_slice_is_told_by_its_masks(masked: Path, tiny_data: Path, tmp_path: Path) -> None:
    scan = sorted((tiny_data / "imagesTr").iterdir())[0]
    found = explain(masked, scan)

    assert [each.name for each in found.maps] == ["background", "dark", "bright"]
    assert np.allclose(sum(each.map for each in found.maps), 1, atol=1e-5)
    assert found.slice is not None
    page, _, maps = found.save(tmp_path)
    assert page.read_text().count("% of the image") == 3
    assert set(np.load(maps)) == {"map_0", "map_1", "map_2"}


def test_the_frozen_part_is_stored_and_the_artifact_small(scored: Path, masked: Path) -> None:
    for run, blocks, count in ((scored, 7, 3 * 128), (masked, 6, 3 * 2 * 128)):
        assert f"the first {blocks} of 8 blocks run once" in (run / "train.log").read_text()
        assert read_artifact(run).counts["prompts"] == count


def test_known_classes_go_on_beside_a_new_one(scored: Path) -> None:
    artifact = read_artifact(scored)
    config = artifact.config
    model = adapted_model(artifact, config, artifact.plan, {0: "standing", 1: "checked", 2: "flat"})
    old = restore_model(artifact)
    rows, before = model.prompts.queries.tokens[0], old.prompts.queries.tokens[0]
    assert torch.equal(rows[0], before[2])
    assert torch.equal(rows[2], before[0])
    assert not torch.equal(rows[1], before[1])
    assert torch.equal(model.head.output.weight, old.head.output.weight)


def test_in_a_comparison_each_method_has_the_head_that_reads_it(tiny_classes: Path, tmp_path: Path) -> None:
    for given in ({}, {"prompts": "class_prompts"}, {"head": {"kind": "mlp"}}):
        base = load_config(tiny_classes, SCORED | {"prompts": "deep"} | given)
        resolved, data = read_data(base)
        names = ["linear", "deep", "class_prompts", "class_prompts_deep"]
        comparison = Comparison(tmp_path, resolved, "classification", data, choose_methods(names, "classification"), 1)
        found = [comparison.config_of(Trial(name, "search", {})).resolved("classification") for name in names]
        assert [config.head.kind for config in found][2:] == ["class_scores"] * 2
        assert found[0].head.kind == "linear"
        assert found[1].head.kind == given.get("head", {"kind": "linear"})["kind"]
        assert [getattr(config.prompts, "before", None) for config in found] == [None, None, 0, 10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompts": "deep", "head.kind": "class_scores"}, "class_scores reads what class_prompts have become"),
        (
            {"prompts": "class_prompts", "head.kind": "linear"},
            "read by the head class_scores alone.*leave head.kind out",
        ),
        ({"prompts": "class_queries"}, "prompts.method=class_queries is not for classification"),
        ({"prompts": "class_prompts", "backbone.name": "sam_micro"}, "no token can travel .* sam_micro"),
        ({"prompts": "class_prompts", "backbone.name": "none"}, "backbone none"),
    ],
)
def test_what_does_not_go_together_is_refused(
    given: dict[str, object], said: str, tiny_classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(VptError, match=said):
        train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | given)


def test_grades_have_no_prompt_of_their_own(tiny_grades: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"the data have grades.*a class prompt belongs to one class"):
        train(tiny_grades, tmp_path / "run", overrides=SCORED | {"data.target": "grades"})


def test_a_loop_of_ones_own_is_told_that_classes_are_unknown() -> None:
    import timm

    with pytest.raises(VptError, match="nobody says how many classes there are; choose deep"):
        vpt.wrap(timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=1), prompts="class_prompts")


@pytest.mark.slow
@pytest.mark.parametrize(("data", "pattern"), [("tiny_labels", "*.png"), ("tiny_scans", "ill/*.nii.gz")])
def test_several_labels_and_volumes_are_told_too(
    data: str, pattern: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = request.getfixturevalue(data)
    run = train(root, tmp_path / "run", overrides=SCORED | ({"plan.slices": 3} if data == "tiny_scans" else {}))
    scan = sorted(root.glob(pattern))[0]
    found = explain(run, scan)
    model = vpt.load(run, precision="32-true")
    assert {each.name for each in found.maps} == set(model.classify(scan))
    depth = reader_of(scan).grid().turned(model.plan.orientation)[1].shape[0]
    assert found.slice == (int(1.5 * depth / 3) if data == "tiny_scans" else None)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "adapter"])
def test_a_tuned_encoder_is_read_as_well(tuning: str, tiny_classes: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = train(tiny_classes, tmp_path / "run", overrides=SCORED | {"tuning": tuning})
    found = explain(run, image_of(tiny_classes))
    assert all(0 < each.map.sum() < 1 for each in found.maps)


@pytest.mark.slow
def test_a_scan_has_the_same_mask_in_a_bank_as_alone(masked: Path, tiny_run: Path, tiny_data: Path) -> None:
    scan = sorted((tiny_data / "imagesTr").iterdir())[0]
    bank = vpt.Bank("vit_micro", precision="32-true")
    for name, run in (("queries", masked), ("deep", tiny_run)):
        bank.add(name, run)
    together = bank.segment(scan)
    for name, run in (("queries", masked), ("deep", tiny_run)):
        alone = np.asarray(vpt.load(run, precision="32-true").segment(scan).dataobj)
        assert np.array_equal(np.asarray(together[name].dataobj), alone)

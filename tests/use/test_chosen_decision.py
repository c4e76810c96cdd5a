"""How masks are made of probabilities is chosen on validation, lies in the artifact, and is done and said by users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import image_plan, tiny
from PIL import Image
from tiny_run import SETTINGS

from vpt.artifact import FORMAT, read_artifact, save_artifact
from vpt.data.layouts import read_dataset
from vpt.engine import segmenting
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.tensor_files import read_tensors, write_tensors
from vpt.use.bank import Bank
from vpt.use.decisions import DecisionChoice, choose_decision
from vpt.use.load import load
from vpt.use.runs import evaluate_run
from vpt.use.scored_splits import evaluate_split
from vpt.use.segmenter import Segmenter
from vpt.vocabulary import Decision

LABELS = {0: "background", 1: "found"}
WORDS = "masks of the highest expected Dice"


def unsure(folder: Path, decision: Decision) -> Path:
    """A model that is unsure of what it finds, as a training leaves it that chose so."""
    path, (model, config) = folder / f"{decision}.safetensors", tiny(image_plan(), len(LABELS))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_artifact(path, model, config=config, plan=image_plan(), labels=LABELS, scores={}, decision=decision)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Decision, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"likeliest": unsure(folder, "likeliest"), "dice": unsure(folder, "dice")}


def decision_of(given: Any, **settings: Any) -> Decision:
    segmenter = load(given, "cpu", precision="32-true", **settings)
    assert isinstance(segmenter, Segmenter)
    return segmenter.decision


@pytest.mark.slow
def test_a_model_decides_as_its_training_chose_unless_told_otherwise(models: dict[Decision, Path]) -> None:
    for chosen, path in models.items():
        assert decision_of(path) == chosen
        assert decision_of(path, decide="likeliest") == "likeliest"
        assert decision_of(path, decide="dice") == "dice"


@pytest.mark.slow
def test_an_ensemble_decides_as_more_than_half_of_its_models(models: dict[Decision, Path]) -> None:
    usual, wider = models["likeliest"], models["dice"]
    assert decision_of([wider, wider, usual]) == "dice"
    assert decision_of([wider, usual]) == "likeliest"


@pytest.mark.slow
def test_tasks_side_by_side_decide_each_as_its_training_chose(models: dict[Decision, Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    bank = Bank("vit_micro", "cpu", precision="32-true")
    for decision, path in models.items():
        bank.add(decision, path)
    together = bank.segment(pixels)
    for decision, path in models.items():
        alone = load(path, "cpu", precision="32-true").segment(pixels)
        np.testing.assert_array_equal(np.asarray(together[decision]), np.asarray(alone))
    assert (np.asarray(together["dice"]) > 0).sum() > (np.asarray(together["likeliest"]) > 0).sum()


def test_the_header_tells_it_and_what_is_not_known_is_refused(models: dict[Decision, Path], tmp_path: Path) -> None:
    tensors, metadata = read_tensors(models["dice"], "")
    header = json.loads(metadata["vpt"])
    assert header["decision"] == "dice"
    assert "decision" not in json.loads(read_tensors(models["likeliest"], "")[1]["vpt"])  # as earlier versions wrote it
    header["decision"] = "largest"
    write_tensors(tmp_path / "odd.safetensors", tensors, {"format": FORMAT, "vpt": json.dumps(header)})
    with pytest.raises(VptError, match=r"header is damaged.*decision"):
        read_artifact(tmp_path / "odd.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "count", "expected"), [("dice", 6, "dice"), ("likeliest", 6, "likeliest"), ("dice", 4, "likeliest")]
)
def test_what_raises_the_dice_of_enough_cases_is_chosen(
    models: dict[Decision, Path], tmp_path: Path, truth: Decision, count: int, expected: Decision
) -> None:
    """References as the one way makes them."""
    artist, random = load(models[truth], "cpu", precision="32-true"), np.random.default_rng(0)
    for folder in ("images", "masks", "found"):
        (tmp_path / folder).mkdir()
    for number in range(count):
        pixels = random.integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"p{number:02}.png")
        mask = (np.asarray(artist.segment(pixels)) > 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"p{number:02}.png")
    cases = read_dataset(tmp_path).cases
    segmenter = load(models["likeliest"], "cpu", precision="32-true")
    report = evaluate_split(segmenter, cases, tmp_path / "found", str, title="")

    choice = choose_decision(segmenter, cases, report)

    assert choice.decision == expected
    assert segmenter.decision == "likeliest"
    if count < 5:
        assert "fewer than 5 patients with a labelled voxel, so nothing is chosen" in str(choice)
    else:
        assert (choice.gain > 0) == (truth == "dice")
        assert f"{choice.gain:+.4f}" in str(choice)


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a few steps, as if its validation had chosen it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenting, "choose_decision", lambda *given: DecisionChoice(0.1, (0.05, 0.2)))
        settings = SETTINGS | {"train.postprocess": "auto"}
        return train(tiny_data, tmp_path_factory.mktemp("decided") / "run", overrides=settings)


@pytest.mark.slow
def test_it_is_in_the_artifact_the_log_the_card_the_page_and_the_scores(
    run: Path, vpt: Callable[..., Any], tmp_path: Path
) -> None:
    assert read_artifact(run).decision == "dice"
    assert read_artifact(run / "last.safetensors").decision == "likeliest"
    assert f"{WORDS}: Dice +0.1000 (+0.0500 to +0.2000), kept" in (run / "train.log").read_text()
    for page in ("model_card.md", "report.html"):
        assert f"{WORDS}; chosen on validation" in (run / page).read_text()
    assert f"{WORDS}; chosen on validation" in vpt("info", run).out
    title = json.loads((run / "validation/summary.json").read_text())["settings"]["title"]
    assert title.endswith(f"; {WORDS}, as chosen on these cases")
    copied = shutil.copytree(run, tmp_path / "run")
    for decide, folder, told in (
        ("auto", "val", f"val split; {WORDS}, as chosen on these cases"),
        ("likeliest", "val_likeliest", "val split, every voxel's likeliest label"),
        ("dice", "val_dice", f"val split, {WORDS}"),
    ):
        report, place = evaluate_run(copied, split="val", device="cpu", decide=decide)  # type: ignore[arg-type]
        assert place == copied / folder
        assert report.settings.title.endswith(told)  # type: ignore[union-attr]


@pytest.mark.slow
def test_scans_are_predicted_so_it_is_said_and_left_out_when_told(
    vpt: Callable[..., Any], run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scan, words = tiny_data / "imagesTr/blobs_000_0000.nii.gz", f"{WORDS}, as chosen on validation"
    given = ("predict", "-i", scan, "-m", run, "--device", "cpu")
    masks, records = {}, {}
    for decide in ("auto", "likeliest", "dice"):
        told = vpt(*given, "-o", tmp_path / decide, "--decide", decide)
        assert (words in told.out) == (decide == "auto")
        masks[decide] = np.asarray(nib.load(tmp_path / decide / "blobs_000.nii.gz").dataobj)
        records[decide] = json.loads((tmp_path / decide / "predictions.json").read_text())["cases"][0]["settings"]
    np.testing.assert_array_equal(masks["auto"], masks["dice"])
    assert (masks["auto"] != masks["likeliest"]).any()
    assert [each.get("decide") for each in records.values()] == ["dice", None, "dice"]


@pytest.mark.slow
def test_a_further_task_leaves_the_choice_of_those_before(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    start = {"start.path": str(run), "start.adds": True, "start.task": "second"}
    later = train(tiny_data, tmp_path / "later", overrides=SETTINGS | start)
    artifact = read_artifact(later)
    assert artifact.decision == "likeliest"
    assert [each.decision for each in artifact.earlier.values()] == ["dice"]


@pytest.mark.slow
def test_it_is_taken_back_and_nothing_is_trained(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    train(None, copied, resume=True, overrides={"train.postprocess": "none"})
    assert read_artifact(copied).decision == "likeliest"
    assert (copied / "metrics.csv").read_text() == (run / "metrics.csv").read_text()


@pytest.mark.slow
def test_tasks_side_by_side_are_told_to_decide_as_usual(
    vpt: Callable[..., Any], models: dict[Decision, Path], tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(scans / "a.png")
    tasks = [word for name, path in models.items() for word in ("-m", f"{name}={path}")]
    given = ("predict", "-i", scans, *tasks, "--device", "cpu")

    for decide, alike in (("auto", False), ("likeliest", True)):
        assert vpt(*given, "-o", tmp_path / decide, "--decide", decide).code == 0
        masks = [np.asarray(Image.open(tmp_path / decide / name / "a.png")) for name in models]
        assert np.array_equal(*masks) == alike
    refused = vpt(*given, "-o", tmp_path / "dice", "--decide", "dice")
    assert (refused.code, "--decide dice: not for several models side by side" in refused.err) == (2, True)

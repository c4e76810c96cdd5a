"""`decide`: one model, an ensemble, models in planes and by task give the mask of most expected Dice when asked to."""

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

from vpt.artifact import save_artifact
from vpt.errors import VptError
from vpt.tasks.deciding import classes_of_most_dice
from vpt.use.load import load
from vpt.use.runs import evaluate_run

LABELS = {0: "background", 3: "found"}
PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two that are unsure of what they find."""
    paths = []
    for seed in (1, 2):
        model, config = tiny(image_plan(), len(LABELS))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        paths.append(tmp_path_factory.mktemp("models") / f"{seed}.safetensors")
        save_artifact(paths[-1], model, config=config, plan=image_plan(), labels=LABELS, scores={})
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_the_mask_is_decided_by_the_probabilities_that_are_averaged(models: list[Path], several: bool) -> None:
    given: Any = models if several else models[0]
    likeliest, dice = (load(given, "cpu", precision="32-true", decide=word) for word in ("likeliest", "dice"))
    scan = dice.prepare(PIXELS)
    expected = classes_of_most_dice(dice.probabilities_of(scan), scan.oriented.shape, 2)

    found, usual = np.asarray(dice.segment(PIXELS)), np.asarray(likeliest.segment(PIXELS))

    np.testing.assert_array_equal(found, dice.mask_of(scan, dice.ids_of(expected, scan)))
    assert (found[usual == 3] == 3).all()
    assert (found == 3).sum() > (usual == 3).sum() > 0
    seen, quality = dice.segment_with_quality(PIXELS)
    np.testing.assert_array_equal(np.asarray(seen), found)
    assert repr(quality) == repr(likeliest.segment_with_quality(PIXELS)[1])  # which is of the likeliest labels


def test_what_cannot_be_decided_so_is_refused(models: list[Path], class_run: Path) -> None:
    with pytest.raises(VptError, match="decide 'largest': expected auto, likeliest or dice"):
        load(models[0], "cpu", decide="largest")
    with pytest.raises(VptError, match="is of masks, and the model classifies; leave it out"):
        load(class_run, "cpu", decide="dice")


@pytest.mark.slow
def test_a_run_is_evaluated_so_and_the_title_and_the_folder_say_so(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))  # others compare the folder of theirs
    report, folder = evaluate_run(run, device="cpu", decide="dice")

    assert folder == run / "test_dice"
    assert report.settings.title.endswith("masks of the highest expected Dice")


@pytest.mark.slow
def test_scans_are_predicted_so_and_the_record_says_so(
    vpt: Callable[..., Any], tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scan, out = next((tiny_data / "imagesTr").glob("*.nii.gz")), tmp_path / "out"
    given = ("predict", "-i", scan, "-o", out, "-m", tiny_run, "--device", "cpu")

    assert vpt(*given, "--decide", "dice").code == 0
    again, otherwise = vpt(*given, "--decide", "dice", "--continue"), vpt(*given, "--continue")

    assert "1 of them was done before and is unchanged" in again.out
    assert "done before" not in otherwise.out
    (record,) = json.loads((out / "predictions.json").read_text())["cases"]
    assert "decide" not in record["settings"]  # those of the last command
    mask = np.asarray(nib.load(next(out.glob("*.nii.gz"))).dataobj)
    np.testing.assert_array_equal(mask, np.asarray(load(tiny_run, "cpu").segment(scan).dataobj))


def test_a_word_for_neither_and_masks_without_a_model_are_no_use(
    vpt: Callable[..., Any], tiny_data: Path, tmp_path: Path
) -> None:
    labels = tiny_data / "labelsTr"

    told = vpt("predict", "-i", labels, "-o", tmp_path, "-m", tmp_path, "--decide", "largest")
    assert (told.code, "--decide largest: expected auto, likeliest or dice" in told.err) == (2, True)
    told = vpt("evaluate", labels, labels, "--decide", "dice")
    assert (told.code, "--decide dice: needs a run, not folders of masks" in told.err) == (2, True)

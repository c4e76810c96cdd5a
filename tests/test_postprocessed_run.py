"""What a training chose to do with masks is in its artifact, is done by whoever uses it, and is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_run import ONE_STEP, SETTINGS

from vpt.artifact import FORMAT, read_artifact
from vpt.data.postprocess import largest_component, tidied
from vpt.engine import segmenting
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.tensor_files import read_tensors, write_tensors
from vpt.use.load import load
from vpt.use.tidying import Choice, Tried

STEPS = {1: ("largest",), 2: ("largest", "fill")}


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory) -> Path:
    """Trained for one step, as if its validation had chosen `STEPS`."""
    with pytest.MonkeyPatch.context() as patch:
        tried = (Tried("dark", "largest", 0.1, (0.05, 0.2), True),)
        patch.setattr(segmenting, "choose_steps", lambda *given: Choice(STEPS, tried))
        settings = SETTINGS | {"train.postprocess": "auto"}
        return train(tiny_data, tmp_path_factory.mktemp("tidy") / "run", overrides=settings)


def mask(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.slow
def test_it_is_in_the_artifact_the_log_the_card_and_the_page(run) -> None:
    artifact = read_artifact(run)
    assert artifact.postprocess == STEPS
    words = f"only the largest component of {artifact.labels[1]}"
    assert "Dice +0.1000 (+0.0500 to +0.2000), kept" in (run / "train.log").read_text()
    assert words in (run / "model_card.md").read_text()
    assert words in (run / "report.html").read_text()
    title = json.loads((run / "validation/summary.json").read_text())["settings"]["title"]
    assert words in title
    assert title.endswith("as chosen on these cases")
    assert read_artifact(run / "last.safetensors").postprocess == {}


def test_the_masks_of_validation_are_tidied(run) -> None:
    for path in (run / "validation").glob("*.nii.gz"):
        found = mask(path)
        for label in STEPS:
            assert largest_component(found == label).sum() == (found == label).sum()


@pytest.mark.slow
def test_predict_does_it_says_it_and_leaves_it_out_when_told(run, tiny_data, tmp_path, vpt) -> None:
    scan = tiny_data / "imagesTr/blobs_000_0000.nii.gz"
    words = ("predict", "-i", scan, "-m", run, "--device", "cpu")
    told = vpt(*words, "-o", tmp_path / "tidy")
    assert "post-processing, as chosen on validation: only the largest component of" in told.out
    raw = vpt(*words, "-o", tmp_path / "raw", "--postprocess", "none")
    assert "post-processing" not in raw.out
    before, after = (mask(tmp_path / name / "blobs_000.nii.gz") for name in ("raw", "tidy"))
    np.testing.assert_array_equal(after, tidied(before.copy(), STEPS))
    assert (before != after).any()
    settings = [
        json.loads((tmp_path / name / "predictions.json").read_text())["cases"][0]["settings"]["postprocess"]
        for name in ("raw", "tidy")
    ]
    assert settings[0] == "none"
    assert "largest component" in settings[1]
    assert vpt(*words, "-o", tmp_path / "other", "--postprocess", "some").code == 2


@pytest.mark.slow
def test_evaluate_says_it_and_keeps_the_raw_masks_apart(run, tmp_path, vpt) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    assert vpt("evaluate", copied, "--split", "val", "--device", "cpu").code == 0
    assert vpt("evaluate", copied, "--split", "val", "--device", "cpu", "--postprocess", "none").code == 0
    titles = [
        json.loads((copied / folder / "summary.json").read_text())["settings"]["title"] for folder in ("val", "val_raw")
    ]
    assert titles[0].endswith("as chosen on these cases")
    assert titles[1].endswith("without post-processing")
    assert vpt("evaluate", copied / "val", copied / "val", "--postprocess", "none").code == 2


@pytest.mark.slow
def test_an_ensemble_does_what_more_than_half_do(run, tiny_run) -> None:
    assert load(run, "cpu").postprocess == STEPS
    assert load([run, run, tiny_run], "cpu").postprocess == STEPS
    assert load([run, tiny_run], "cpu").postprocess == {}
    assert load([run, run], "cpu", postprocess=False).postprocess == {}


def test_an_older_artifact_has_none_and_a_damaged_header_is_refused(run, tmp_path) -> None:
    tensors, metadata = read_tensors(run / "best.safetensors", "")
    header = json.loads(metadata["vpt"])

    def saved(name: str) -> Path:
        write_tensors(tmp_path / name, tensors, {"format": FORMAT, "vpt": json.dumps(header)})
        return tmp_path / name

    header["postprocess"] = {"7": ["largest"]}
    with pytest.raises(VptError, match="post-processing of 7, which is no label"):
        read_artifact(saved("unknown.safetensors"))
    header["postprocess"] = {"1": ["smallest"]}
    with pytest.raises(VptError, match=r"header is damaged.*postprocess"):
        read_artifact(saved("odd.safetensors"))
    del header["postprocess"]
    assert read_artifact(saved("older.safetensors")).postprocess == {}


@pytest.mark.slow
def test_a_validation_of_few_patients_chooses_nothing(tiny_data, tmp_path) -> None:
    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"train.postprocess": "auto"})
    assert "fewer than 5 patients, so nothing is chosen" in (run / "train.log").read_text()
    assert read_artifact(run).postprocess == {}


@pytest.mark.slow
def test_it_is_chosen_for_a_run_that_is_there_and_taken_back_and_nothing_is_trained(
    tiny_run: Path, tmp_path: Path, vpt, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(tiny_run, tmp_path / "run")
    before = read_artifact(copied)
    tried = (Tried("dark", "largest", 0.1, (0.05, 0.2), True),)
    monkeypatch.setattr(segmenting, "choose_steps", lambda *given: Choice(STEPS, tried))

    told = vpt("evaluate", copied, "--split", "val", "--device", "cpu", "--postprocess", "choose")

    assert told.code == 0
    assert "post-processing: only the largest component of dark: Dice +0.1000" in told.out
    assert "as chosen on these cases" in " ".join(told.out.split())  # the title is wrapped where the path is long
    after = read_artifact(copied)
    assert after.postprocess == STEPS
    assert after.config.train.postprocess == "auto"
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in after.tensors.items())
    assert (copied / "metrics.csv").read_text() == (tiny_run / "metrics.csv").read_text()
    for page in ("report.html", "model_card.md", "train.log"):
        assert "only the largest component of dark" in (copied / page).read_text()
    assert "auto" in (copied / "config.yaml").read_text()

    train(None, copied, resume=True, overrides={"train.postprocess": "none"})
    assert read_artifact(copied).postprocess == {}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("{run}", "{run}"), 2, "--postprocess choose: is of one run"),
        (("{run}/validation",), 1, "validation: no run that is at its end; finish it with"),
        (("{run}", "--data", "elsewhere"), 2, "the choice is made where the data set of the training lies"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(tiny_run: Path, vpt, words, code: int, sentence: str) -> None:
    told = vpt("evaluate", *(word.format(run=tiny_run) for word in words), "--postprocess", "choose")
    assert told.code == code
    assert sentence in told.err

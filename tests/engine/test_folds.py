"""All folds in one folder: resumable, shared, summed up over all cases, and used together."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock
from tiny_run import ONE_STEP, assert_same_run

from vpt.config import load_config
from vpt.engine import folds as module
from vpt.engine.folds import train_folds
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError
from vpt.report.segmentation import Report
from vpt.use.cross_validation import evaluate_folds
from vpt.use.ensembles import SegmenterEnsemble
from vpt.use.load import load

THREE = ONE_STEP | {"data.folds": 3}


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of which nothing fixes the sides."""
    root = shutil.copytree(tiny_data, tmp_path_factory.mktemp("folds") / "blobs")
    (root / "split.json").unlink(missing_ok=True)
    return root


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished folds. Read only."""
    return train_folds(load_config(data, THREE), tmp_path_factory.mktemp("folds") / "out")


def sides(folder: Path) -> list[dict[str, list[str]]]:
    return [json.loads((folder / f"fold-{fold}" / "splits.json").read_text()) for fold in range(3)]


@pytest.mark.slow
def test_every_case_validates_in_one_fold_and_trains_in_the_others(folder):
    found = sides(folder)
    assert sorted(name for side in found for name in side["val"]) == sorted({*found[0]["train"], *found[0]["val"]})
    assert all(not set(side["val"]) & set(side["train"]) and not side["test"] for side in found)
    plans = [json.loads((folder / f"fold-{fold}" / "plan.json").read_text()) for fold in range(3)]
    assert len({(plan["plane"], plan["pixel_mm"], plan["image_size"]) for plan in plans}) == 1


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(data, folder, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *args, **how: pytest.fail("trained again"))
    assert train_folds(load_config(data, THREE), folder) == folder


@pytest.mark.slow
def test_an_interrupted_fold_is_resumed_bit_for_bit(data, folder, tmp_path, signal_at: Callable[..., None]):
    out = tmp_path / "out"
    for fold in (1, 2):
        shutil.copytree(folder / f"fold-{fold}", out / f"fold-{fold}")
    for name in ("config.yaml", "folds.json"):
        shutil.copy(folder / name, out / name)
    signal_at(1, signal.SIGINT)
    with pytest.raises(Interrupted):
        train_folds(load_config(data, THREE), out)
    assert (out / "fold-0" / "state" / "last.safetensors").exists()
    with pytest.raises(VptError, match=r"fold-0 of 3 folds not finished; go on with"):
        load(out, "cpu")
    signal_at(10**5)
    train_folds(load_config(data, THREE), out)
    assert_same_run(out / "fold-0", folder / "fold-0")
    assert "resumed" in (out / "fold-0" / "train.log").read_text()


@pytest.mark.slow
def test_a_fold_that_another_process_trains_is_left_to_it(data, folder, tmp_path, monkeypatch):
    out = shutil.copytree(folder, tmp_path / "out")
    for fold in (0, 2):
        (out / f"fold-{fold}" / "fold.json").unlink()
    trained, other = [], FileLock(out / "fold-0.lock")

    def note(config, run, **how):
        trained.append(run.name)
        return run

    def wait(seconds):  # the other process finishes meanwhile
        (out / "fold-0" / "fold.json").write_text("{}")
        other.release()

    monkeypatch.setattr(module, "train", note)
    monkeypatch.setattr(module.time, "sleep", wait)
    other.acquire()
    train_folds(load_config(data, THREE), out)
    assert trained == ["fold-2"]


def test_folds_of_other_data_are_refused_by_name(data, tmp_path, monkeypatch):
    """What an earlier version began has no marks of its data, and goes on."""
    root, out = shutil.copytree(data, tmp_path / "blobs"), tmp_path / "out"
    monkeypatch.setattr(module, "train", lambda config, run, **how: run.mkdir())
    train_folds(load_config(root, THREE), out)
    train_folds(load_config(root, THREE), out)
    first, last = (sorted((root / "labelsTr").iterdir())[k] for k in (0, -1))
    kept, name = last.read_bytes(), last.name.removesuffix(".nii.gz")
    shutil.copy(first, last)
    with pytest.raises(
        VptError, match=f"out: was begun with other data than these: {name} changed since; choose another --out, or"
    ):
        train_folds(load_config(root, THREE), out)
    last.write_bytes(kept)
    scan = next((root / "imagesTr").glob(f"{name}_0000*"))
    for path in (scan, last):
        shutil.copy(path, path.with_name(path.name.replace(name, "another")))
    with pytest.raises(VptError, match=r"than these: another(, .*)? changed since"):
        train_folds(load_config(root, THREE), out)
    (out / "data.json").unlink()
    train_folds(load_config(root, THREE), out)
    scan.with_name(scan.name.replace(name, "another")).unlink()
    last.with_name("another.nii.gz").unlink()
    with pytest.raises(VptError, match=r"than these: another(, .*)? changed since"):
        train_folds(load_config(root, THREE), out)


def test_folds_of_a_damaged_file_begin_anew_once_it_is_mended(data, tmp_path, monkeypatch):
    root, out, trained = shutil.copytree(data, tmp_path / "blobs"), tmp_path / "out", []
    last = sorted((root / "labelsTr").iterdir())[-1]
    sound = last.read_bytes()
    last.write_bytes(sound[: len(sound) // 2])

    def fail(config, run, **how):
        raise VptError("damaged")

    monkeypatch.setattr(module, "train", fail)
    with pytest.raises(VptError, match="damaged"):
        train_folds(load_config(root, THREE), out)
    last.write_bytes(sound)
    monkeypatch.setattr(module, "train", lambda config, run, **how: (run.mkdir(), trained.append(run.name)))

    train_folds(load_config(root, THREE), out)

    assert trained == ["fold-0", "fold-1", "fold-2"]


@pytest.mark.slow
def test_folds_that_were_killed_while_they_were_described_begin_anew(data, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(folder / "config.yaml", out)
    (out / "data.json").write_text("{}")
    monkeypatch.setattr(module, "train", lambda config, run, **how: run.mkdir())
    train_folds(load_config(data, THREE), out)
    assert (out / "data.json").read_bytes() == (folder / "data.json").read_bytes()


@pytest.mark.slow
def test_what_can_be_no_folds_is_refused(data, tiny_data, folder, tmp_path):
    fixed = shutil.copytree(data, tmp_path / "fixed")
    (fixed / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": []}))
    with pytest.raises(VptError, match=r"split.json: train names 'a', which is no case"):
        train_folds(load_config(fixed, ONE_STEP), tmp_path / "a")
    with pytest.raises(VptError, match="7 folds of 6 patients"):
        train_folds(load_config(data, ONE_STEP | {"data.folds": 7}), tmp_path / "b")
    with pytest.raises(VptError, match="holds folds with other settings"):
        train_folds(load_config(data, THREE | {"seed": 1}), folder)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("")
    with pytest.raises(VptError, match="not empty, and holds no folds; choose another --out"):
        train_folds(load_config(data, THREE), tmp_path / "c")
    run = folder / "fold-0"
    with pytest.raises(VptError, match="not empty, and holds no folds"):
        train_folds(load_config(data, THREE), run)
    (fixed / "split.json").unlink()
    listed = [{"train": side["train"], "val": side["val"]} for side in sides(folder)[:2]]
    (fixed / "splits_final.json").write_text(json.dumps(listed))
    with pytest.raises(VptError, match="lists 2 folds, so there are no 3; take --folds all"):
        train_folds(load_config(fixed, THREE), tmp_path / "d")


# --- what is made of them ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_cases_are_scored_by_the_fold_that_had_not_seen_them(folder, tmp_path):
    report, place = evaluate_folds(folder, tmp_path / "scores", device="cpu")
    assert isinstance(report, Report)
    assert place == tmp_path / "scores"
    assert [case.name for case in report.cases] == [name for side in sides(folder) for name in side["val"]]
    assert len(set(report.groups)) == 6
    assert "3 folds, every case scored by the one that had not trained on it" in report.settings.title
    for fold, side in enumerate(sides(folder)):
        own = load(folder / f"fold-{fold}", "cpu")
        for name in side["val"]:
            mask = own.segment(next((folder_of_scans(folder)).glob(f"{name}_0000*")))
            assert np.array_equal(np.asarray(nib.load(place / f"{name}.nii.gz").dataobj), np.asarray(mask.dataobj))


def folder_of_scans(folder: Path) -> Path:
    return load_config(folder / "config.yaml").data.path / "imagesTr"


@pytest.mark.slow
def test_runs_of_folds_are_summed_up_as_well_but_no_case_twice(folder):
    runs = [folder / f"fold-{fold}" for fold in range(3)]
    with pytest.raises(VptError, match=r"is validated in .*fold-0 and in .*fold-0; give every fold once"):
        evaluate_folds([runs[0], runs[1], runs[0]])
    with pytest.raises(VptError, match="not a run's folder"):
        evaluate_folds([folder])


@pytest.mark.slow
def test_the_folder_is_an_ensemble_of_all_folds(folder):
    together = load(folder, "cpu")
    assert isinstance(together, SegmenterEnsemble)
    assert len(together.members) == 3
    assert len({id(member.model.backbone) for member in together.members}) == 1


@pytest.mark.slow
def test_few_cases_without_a_test_split_are_told_of_folds(data, folder, tmp_path):
    run = train(data, tmp_path / "run", overrides=ONE_STEP)
    said = "6 cases and no test split; `vpt train"
    assert said in (run / "train.log").read_text()
    assert "--folds 5` scores every case" in (run / "train.log").read_text()
    assert said not in (folder / "fold-0" / "train.log").read_text()

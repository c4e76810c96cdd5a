"""More channels than three: mixed by what trains, from the files to the mask, and nothing below is taken as frozen."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from encoders import FAMILIES, make_backbone, shaken
from masks import LABELS, scan_plan, threshold, tiny, voxels
from plans import plan_with
from tiny_run import ONE_STEP, SETTINGS, assert_same_run

from vpt.artifact import read_artifact
from vpt.building import build_model
from vpt.cli import main
from vpt.config import Config
from vpt.data.plan import Percentiles, Window
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError
from vpt.heads import MaskHead
from vpt.mixing import Mixing, thirds
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts
from vpt.tasks.batch import Batch
from vpt.tasks.images import Normalise
from vpt.tasks.segmentation import SliceModel
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

FOUR = ("FLAIR", "T1", "CT", "T2")


# --- the mixing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 16])
def test_it_starts_with_means_of_thirds_that_use_every_channel_alike(channels: int) -> None:
    start = thirds(channels)
    torch.testing.assert_close(start.sum(1), torch.ones(3))
    torch.testing.assert_close(start.sum(0), torch.full((channels,), 3 / channels))
    assert (start >= 0).all()
    assert [row.nonzero().max() for row in start] == sorted(row.nonzero().max() for row in start)


def test_of_three_it_is_the_identity_and_of_four_as_its_docstring_says() -> None:
    assert torch.equal(thirds(3), torch.eye(3))
    assert thirds(4).tolist() == [[0.75, 0.25, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75]]


def test_an_image_stays_in_its_range_and_black_stays_black_in_single_precision() -> None:
    images = torch.rand(2, 5, 4, 6)
    images[:, :, 0] = 0
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Mixing(5)(images)
    assert (mixed.shape, mixed.dtype) == ((2, 3, 4, 6), torch.float32)
    assert (mixed[:, :, 0] == 0).all()
    assert 0 <= mixed.min() < mixed.max() <= 1
    torch.testing.assert_close(mixed, torch.einsum("oc,bchw->bohw", thirds(5), images))


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("late", [0, 1])
def test_it_learns_through_a_frozen_encoder_of_which_no_prefix_is_stored(family: str, late: int) -> None:
    backbone = make_backbone(family)
    prompts = DeepPrompts(backbone.spec, count=2, blocks="last:1") if late else Prompts()
    head = shaken(MaskHead(backbone.spec, classes=2, width=8, detail=8, levels=2))
    model = PromptedModel(backbone, prompts, head, Mixing(4))
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert model.first_trained_block() == 0

    SliceModel(model)(Batch(images=torch.rand(2, 4, 64, 40))).logits.square().mean().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()

    assert (model.mixing.weight.grad != 0).all()
    assert not torch.equal(model.mixing.weight[..., 0, 0], thirds(4))
    assert all(torch.equal(backbone.state_dict()[name], tensor) for name, tensor in before.items())
    assert model.count_parameters()["mixing"] == 12
    assert sum(t.numel() for t in model.trained_state().values()) == model.count_parameters()["trained"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_up_to_three_channels_no_model_mixes(count: int) -> None:
    model, _ = tiny(scan_plan(neighbours=count == 1, channels=FOUR[:count], intensity=(Percentiles(),) * count))
    assert model.mixing is None
    assert "mixing" not in model.count_parameters()
    assert not any(name.startswith("mixing") for name in model.trained_state())


@pytest.mark.parametrize("head", [{"kind": "sam_decoder", "hints": True}, {"kind": "unet", "width": 8}])
def test_heads_that_read_images_or_hints_see_the_three(head: dict[str, Any]) -> None:
    options = {"native": 64, "patch": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3, "padding": "centre"}
    none = {"name": "none", "options": options}
    encoder = none if head["kind"] == "unet" else {"name": "sam_micro", "weights": "random"}
    values = {"data": {"path": "."}, "backbone": encoder, "prompts": {"method": "none"}, "head": head}
    plan = scan_plan(neighbours=False, channels=FOUR, intensity=(Percentiles(),) * 4)
    model = build_model(Config.model_validate(values), plan, 2).eval()
    batch, given = Batch(images=torch.rand(1, 4, 64, 64)), None
    if "hints" in head:
        given = batch["hints"] = torch.tensor([[[9.0, 9, 2], [40, 40, 3], [0, 0, -1]]])

    found = SliceModel(model)(batch).logits

    mixed = Normalise(model.backbone.spec)(torch.einsum("oc,bchw->bohw", thirds(4), batch["images"]))
    torch.testing.assert_close(found, model(mixed, given))


# --- the images -------------------------------------------------------------------------------------------------------


def test_what_lies_around_a_slice_is_mixed_to_about_the_plans_colour() -> None:
    fill = (0.5, 0.4, 0.3)
    assert plan_with(fill=fill).around == fill
    plan = plan_with(fill=fill, neighbours=False, channels=FOUR, intensity=(Window(low=0, high=1),) * 4)
    assert plan.around == pytest.approx((0.4,) * 4)
    assert plan.inputs == 4


@pytest.mark.parametrize("channels", [4, 16])
def test_a_mask_of_many_channels_lies_where_the_label_is(channels: int) -> None:
    plan = plan_with(
        pixel_mm=0.5,
        neighbours=False,
        channels=tuple(f"q{k}" for k in range(channels)),
        intensity=(Window(low=0, high=1),) * channels,
    )
    truth = np.zeros((20, 30, 4), np.float32)
    truth[5:12, 9:25, 1:3] = 1
    stacked = np.stack([truth, *[1 - truth] * (channels - 1)], -1)
    mask = threshold(plan).segment(nib.Nifti1Image(stacked, np.diag([1.0, 1, 3, 1])))
    assert np.array_equal(voxels(mask) == 117, truth == 1)


@pytest.mark.slow
def test_files_and_a_four_dimensional_one_give_the_same_mask(tmp_path: Path) -> None:
    plan = scan_plan(neighbours=False, channels=FOUR, intensity=(Percentiles(),) * 4)
    segmenter = Segmenter.from_model(tiny(plan)[0], plan, LABELS, torch.device("cpu"))
    arrays = [np.random.default_rng(k).normal(300, 80, (20, 18, 6)).astype(np.int16) for k in range(4)]
    paths = [tmp_path / f"a_{k:04d}.nii.gz" for k in range(4)]
    for array, path in zip(arrays, paths, strict=True):
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    mask = voxels(segmenter.segment(paths))
    assert len(np.unique(mask)) > 1
    stacked = tmp_path / "b.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(arrays, -1), np.eye(4)), stacked)
    for given in (nib.load(stacked), stacked, (stacked,)):
        assert np.array_equal(mask, voxels(segmenter.segment(given)))
    assert not np.array_equal(mask, voxels(segmenter.segment(paths[::-1])))
    with pytest.raises(
        VptError, match="3 channels, expected 4 channels as the training had them: CASE_0000 FLAIR, CASE_0001 T1"
    ):
        segmenter.segment(paths[:3])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases as nnU-Net keeps them, with four sequences, of which the last alone shows the label."""
    root, rng = tmp_path_factory.mktemp("four"), np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for number in range(6):
        label = np.zeros((24, 20, 6), np.uint8)
        label[6 + number : 16 + number, 5:14, 1:5] = 1
        for k in range(4):
            values = rng.normal(100, 10, label.shape) + (90 * label if k == 3 else 0)
            image = nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 5, 1]))
            nib.save(image, root / f"imagesTr/case_{number:02d}_{k:04d}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.diag([2.0, 2, 5, 1])), root / f"labelsTr/case_{number:02d}.nii.gz")
    content = {"channel_names": dict(enumerate(FOUR)), "labels": {"background": 0, "tumour": 1}}
    (root / "dataset.json").write_text(json.dumps(content))
    sides = {"train": range(3), "val": (3,), "test": (4, 5)}
    split = {side: [f"case_{k:02d}" for k in numbers] for side, numbers in sides.items()}
    (root / "split.json").write_text(json.dumps(split))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of three steps; views that could be stored, if anything were frozen. Read only."""
    late = {"train.views": 2, "prompts": {"method": "deep", "count": 2, "blocks": "last:1", "dropout": 0.1}}
    return train(data, tmp_path_factory.mktemp("four") / "run", overrides=SETTINGS | late)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """`vpt` with these arguments, which ends with success."""
    monkeypatch.setattr("sys.argv", ["vpt", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


@pytest.mark.slow
def test_the_run_says_what_it_mixes_and_keeps_what_was_learned(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = read_artifact(run)
    assert artifact.tensors["mixing.weight"].shape == (3, 4, 1, 1)
    assert not torch.equal(artifact.tensors["mixing.weight"][..., 0, 0], thirds(4))
    assert artifact.counts["mixing"] == 12
    assert artifact.plan.reasons["channels"] == "4 channels are mixed to 3 by a trained 1x1 convolution"
    said = (run / "train.log").read_text()
    assert "12 that mix 4 channels" in said
    assert "no block stays as it was" in said
    command(monkeypatch, "info", run)
    shown = capsys.readouterr().out
    assert "12 mixing" in shown
    assert "mixed to 3 by a trained 1x1 convolution" in " ".join(shown.split())


@pytest.mark.slow
def test_a_run_is_checked_predicted_with_and_evaluated(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "check", data)
    assert "FLAIR" in capsys.readouterr().out
    command(monkeypatch, "predict", "-i", data / "imagesTr", "-m", run, "-o", tmp_path / "masks", "--device", "cpu")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 6
    command(monkeypatch, "evaluate", run, "--out", tmp_path / "scores")
    assert (tmp_path / "scores" / "summary.json").is_file()
    mask = load(run, device="cpu").segment([data / f"imagesTr/case_05_{k:04d}.nii.gz" for k in range(4)])
    assert np.array_equal(voxels(mask), nib.load(tmp_path / "masks" / "case_05.nii.gz").get_fdata())


@pytest.mark.slow
def test_files_that_hold_all_channels_train_predict_and_evaluate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Medical Segmentation Decathlon keeps its brain tumours."""
    root, names = tmp_path / "Task01", [f"case_{number:02d}" for number in range(6)]
    shutil.copytree(data / "labelsTr", root / "labelsTr")
    shutil.copy(data / "split.json", root)
    (root / "imagesTr").mkdir()
    for name in names:
        each = [nib.load(data / f"imagesTr/{name}_{k:04d}.nii.gz") for k in range(4)]
        stacked = np.stack([image.get_fdata(dtype=np.float32) for image in each], -1)
        nib.save(nib.Nifti1Image(stacked, each[0].affine), root / f"imagesTr/{name}.nii.gz")
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    labels = {"0": "background", "1": "tumour"}
    content = {"modality": dict(enumerate(FOUR)), "labels": labels, "numTraining": 6, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(content))

    run = train(root, tmp_path / "run", overrides=ONE_STEP)
    out = tmp_path / "masks"
    command(monkeypatch, "predict", "-i", root / "imagesTr", "-m", run, "-o", out, "--device", "cpu")
    command(monkeypatch, "evaluate", run, "--out", tmp_path / "scores")

    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    given = [data / f"imagesTr/case_05_{k:04d}.nii.gz" for k in range(4)]
    assert np.array_equal(voxels(load(run, device="cpu").segment(given)), voxels(nib.load(out / "case_05.nii.gz")))


def test_one_channel_with_other_values_is_refused(data: Path, run: Path) -> None:
    images = [nib.load(data / f"imagesTr/case_05_{k:04d}.nii.gz") for k in range(4)]
    stacked = np.stack([image.get_fdata(dtype=np.float32) for image in images], -1)
    stacked[..., 2] += 1024
    with pytest.raises(VptError, match=r"values from 1\d\d\d.* do not look like the values that"):
        load(run, device="cpu").segment(nib.Nifti1Image(stacked, images[0].affine))


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_was(
    data: Path, run: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    late = {"train.views": 2, "prompts": {"method": "deep", "count": 2, "blocks": "last:1", "dropout": 0.1}}
    signal_at(4, signal.SIGINT)
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", overrides=SETTINGS | late)
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", run)


@pytest.mark.slow
def test_prompts_start_from_what_the_mixed_images_give(data: Path, tmp_path: Path) -> None:
    given = {"prompts": {"method": "deep", "count": 2, "init": "tokens"}, "train.augment": "strong"}
    run = train(data, tmp_path / "run", overrides=ONE_STEP | given, brief=True)
    assert read_artifact(run).counts["mixing"] == 12


@pytest.mark.slow
def test_volumes_of_four_channels_are_classified(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shift in (("ill", 80), ("well", 0)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            values = rng.normal(100, 10, (16, 18, 5, 4))
            values[..., 3] += shift * (np.indices((16, 18, 5))[0] > 8)
            image = nib.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1, 3, 1]))
            nib.save(image, tmp_path / "data" / name / f"{number}.nii.gz")
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"channel_names": dict(enumerate(FOUR))}))
    settings = ONE_STEP | {"plan.slices": 2, "train.augment": "none", "prompts": {"method": "none"}}
    run = train(tmp_path / "data", tmp_path / "run", overrides=settings, brief=True)
    artifact = read_artifact(run)
    assert artifact.counts["mixing"] == 12
    assert not torch.equal(artifact.tensors["mixing.weight"][..., 0, 0], thirds(4))
    found = load(run, device="cpu").classify(tmp_path / "data" / "ill" / "0.nii.gz")
    assert sum(found.values()) == pytest.approx(1)

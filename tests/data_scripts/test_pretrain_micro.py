"""The micro encoder learns from labels, pixels and larger encoders, goes on where it stopped and ends in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import micro_data
import micro_stored
import micro_teachers
import numpy as np
import pretrain_micro as script
import pytest
import torch
from micro_stored import STEP, Group, Stored
from micro_student import compile_blocks
from micro_teachers import GroupLinear, Scale, enlarged
from micro_views import draw_mixing, draw_views, mixed
from safetensors.torch import load_file, save_file
from timm import create_model
from tiny_sam import make_vit, wrap

from vpt.backbones import Backbone, load_backbone
from vpt.errors import VptError

LOSSES = slice(3, 9)


def encoded(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    files = [cv2.imencode(".webp", image)[1] for image in images]
    return np.concatenate(files), np.cumsum([0, *map(len, files)])


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight natural pictures of four classes, which differ in their grey."""
    path, rng, arrays = tmp_path_factory.mktemp("pack") / "pack.npz", np.random.default_rng(0), {}
    for part in ("train", "val"):
        labels = np.arange(8) % 4
        images = (labels[:, None, None, None] * 60 + rng.integers(0, 50, (8, 64, 64, 3))).astype(np.uint8)
        data, offsets = encoded(images)
        arrays |= {f"{part}_data": data, f"{part}_offsets": offsets, f"{part}_labels": labels}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two data sets whose split is fixed: the picture of each side has a grey of its own, 50 for training."""
    folders = [tmp_path_factory.mktemp(name) for name in ("classes", "masks")]
    for name, grey in (("a", 50), ("b", 120), ("c", 200)):
        picture = np.full((40, 60), grey, np.uint8)
        mask = np.tri(40, 60, dtype=np.uint8)
        for part in ("images", "masks"):
            (folders[1] / part).mkdir(exist_ok=True)
            cv2.imwrite(str(folders[1] / part / f"{name}.png"), picture if part == "images" else mask)
        for label in ("good", "ill"):
            (folders[0] / label).mkdir(exist_ok=True)
            cv2.imwrite(str(folders[0] / label / f"{name}{label}.png"), picture)
    split = {"train": ["a"], "val": ["b"], "test": ["c"]}
    (folders[1] / "split.json").write_text(json.dumps(split))
    of_classes = {k: [f"{c}/{n}{c}.png" for c in ("good", "ill") for n in v] for k, v in split.items()}
    (folders[0] / "split.json").write_text(json.dumps(of_classes))
    return folders


@pytest.fixture
def teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Random weights of a tiny ViT, and a tiny encoder in the place of LiteMedSAM, as options."""
    torch.manual_seed(0)
    save_file(create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.safetensors")

    def load(name: str, **options: Any) -> Backbone:
        return wrap(make_vit(), "fused") if name == "lite_medsam" else load_backbone(name, **options)

    monkeypatch.setattr(micro_teachers, "load_backbone", load)
    return [
        "--teacher", str(tmp_path / "vit.safetensors"), "--teacher-name", "test_vit",
        "--medical-teacher", "sam.safetensors", "--medical-px", "32",
    ]  # fmt: skip


def train(pack: Path, out: Path, *options: str) -> list[list[float]]:
    script.main([str(pack), "--out", str(out), "--batch", "4", "--device", "cpu", *options])
    return json.loads((out / "log.json").read_text())["log"]


@pytest.mark.slow
def test_teachers_are_learned_from_beside_labels_and_pixels(
    pack: Path, sets: list[Path], teachers: list[str], tmp_path: Path
) -> None:
    first = train(pack, tmp_path / "a", "--epochs", "1", "--medical", *map(str, sets), *teachers)
    assert all(loss > 0 for loss in first[-1][LOSSES])
    last = train(pack, tmp_path / "b", "--epochs", "6", "--medical", *map(str, sets), *teachers)
    assert last[-1][6] < first[-1][6]
    assert last[-1][7] < first[-1][7]
    assert last[-1][8] < first[-1][8]
    loaded = load_backbone("vit_micro", weights=tmp_path / "b" / "vit_micro.safetensors")
    assert loaded.spec.image_size == (64, 64)
    assert (tmp_path / "b" / "vit_micro.safetensors").stat().st_size < 4e6


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SAVE_SECONDS", 0)
    whole = train(pack, tmp_path / "whole", "--epochs", "2")
    learn = script.Run.learn

    def fail(run: script.Run, *rest: torch.Tensor) -> torch.Tensor:
        if run.epoch == 1:
            raise KeyboardInterrupt
        return learn(run, *rest)

    monkeypatch.setattr(script.Run, "learn", fail)
    with pytest.raises(KeyboardInterrupt):
        train(pack, tmp_path / "cut", "--epochs", "2")
    assert (tmp_path / "cut" / "vit_micro.safetensors").is_file()
    monkeypatch.setattr(script.Run, "learn", learn)

    assert train(pack, tmp_path / "cut", "--epochs", "2") == whole

    first, second = (load_file(tmp_path / name / "vit_micro.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_schedule_fits_the_seconds() -> None:
    device, now = torch.device("cpu"), time.perf_counter()
    clock = script.Clock(now + 100, 0.5)
    assert [clock.progress(device) for _ in range(script.SETTLING)] == [0.5] * script.SETTLING
    assert clock.progress(device) == pytest.approx(0.5, abs=0.01)
    clock.start = time.perf_counter() - 100
    assert clock.progress(device) == pytest.approx(0.75, abs=0.01)
    clock.start, clock.end = time.perf_counter() - 10, time.perf_counter() - 1
    assert clock.progress(device) == 1
    assert script.learning_rate(1.0, 2.0) == pytest.approx(0.002)
    assert script.learning_rate(script.WARMUP, 2.0) == pytest.approx(2)


@pytest.mark.slow
def test_seconds_end_a_training_with_its_weights(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SETTLING", 1)
    monkeypatch.setattr(script, "LEAST_SECONDS", 1)
    started = time.perf_counter()
    log = train(pack, tmp_path / "run", "--seconds", "2")
    assert time.perf_counter() - started < 20
    steps = log[-1][2]
    assert steps >= 2
    assert train(pack, tmp_path / "run", "--seconds", "2") == log  # it is at its end


@pytest.mark.slow
def test_losses_that_are_no_numbers_leave_the_state(pack: Path, tmp_path: Path) -> None:
    train(pack, tmp_path / "run", "--epochs", "1")
    before = (tmp_path / "run" / "state.pt").read_bytes()
    with pytest.raises(SystemExit, match="lower --lr"):
        train(pack, tmp_path / "run", "--epochs", "2", "--pixels", "nan")
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


@pytest.mark.slow
def test_what_the_teachers_saw_once_is_learned_from_in_every_epoch(
    pack: Path, sets: list[Path], teachers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--medical", *map(str, sets), *teachers, "--stored", "2"]
    first = train(pack, tmp_path / "run", "--epochs", "1", *options)
    assert all(loss > 0 for loss in first[-1][LOSSES])
    seen = micro_stored._seen
    monkeypatch.setattr(micro_stored, "_seen", None)  # the teachers are not asked again
    last = train(pack, tmp_path / "run", "--epochs", "8", *options)
    assert last[0] == first[0]
    assert last[-1][6] < first[-1][6]
    assert last[-1][7] < first[-1][7]
    with pytest.raises(SystemExit, match=r"natural: holds other views, .*'views': 2.*; this run wants .*'views': 3"):
        train(pack, tmp_path / "run", "--epochs", "9", *options[:-1], "3")

    monkeypatch.setattr(micro_stored, "_seen", seen)
    weights = tmp_path / "run" / "vit_micro.safetensors"
    train(pack, tmp_path / "on", "--epochs", "1", "--start", str(weights), "--lr", "1e-9")
    after = load_file(tmp_path / "on" / "vit_micro.safetensors")
    assert all(torch.allclose(tensor, after[name], atol=1e-3) for name, tensor in load_file(weights).items())


@pytest.mark.slow
def test_views_are_kept_with_what_the_teacher_sees_in_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.safetensors")
    teacher = micro_teachers.Teacher("test_vit", tmp_path / "vit.safetensors", torch.device("cpu"))
    images = torch.randint(256, (6, 3, 64, 64), dtype=torch.uint8)
    teacher.measure([images], torch.Generator().manual_seed(0))
    group = Group(images, torch.zeros(6, dtype=torch.int64), torch.rand(6, 5, 16, 16))
    stored = Stored.of(group, teacher, 2, tmp_path / "views", seed=3)

    generator = torch.Generator().manual_seed(3 * 1000003)
    views = draw_views(12, generator)
    which = torch.arange(12) % 6
    cls, patches = teacher.targets(enlarged(images[which], views, teacher.size), group.numbers[which])
    most = 127 * STEP
    assert torch.from_numpy(stored.arrays["cls"] * STEP) == pytest.approx(cls[:, 0].clamp(-most, most), abs=STEP)
    kept = torch.from_numpy(stored.arrays["patches"] * STEP).flatten(2).mT
    assert kept == pytest.approx(patches.clamp(-most, most), abs=STEP)
    seen = views.tint(views.cut(images[which].float() / 255, 64))
    assert torch.from_numpy(stored.arrays["pictures"] / 255) == pytest.approx(seen, abs=0.01)

    found = stored.drawn(torch.tensor([4]), torch.Generator().manual_seed(1))
    pictures = torch.from_numpy(stored.arrays["pictures"][[4, 10]]).float() / 255
    (way,) = [(k, f) for k in (0, 1) for f in (0, 1) if same(pictures[k], found["pictures"][0], f)]
    maps = torch.from_numpy(stored.arrays["maps"][4 + 6 * way[0]]).float() * STEP
    assert same(maps, found["maps"][0], way[1])

    whole = {name: array.copy() for name, array in stored.arrays.items()}
    mark = tmp_path / "views" / "done.json"
    mark.write_text(mark.read_text().replace('"done": 12', '"done": 0'))
    again = Stored.of(group, teacher, 2, tmp_path / "views", seed=3)
    assert all(np.array_equal(array, again.arrays[name]) for name, array in whole.items())


def same(stored: torch.Tensor, drawn: torch.Tensor, mirrored: int) -> bool:
    return torch.allclose(stored.flip(-1) if mirrored else stored, drawn, atol=1e-5)


def test_options_that_do_not_go_together_are_refused(pack: Path, tmp_path: Path) -> None:
    for options in (
        ["--medical", "a"],
        ["--medical-teacher", "a"],
        ["--small", "0.5", "--seconds", "9"],
        ["--stored", "2"],
    ):
        with pytest.raises(SystemExit):
            train(pack, tmp_path, *options)


def test_only_training_pictures_are_packed(sets: list[Path], tmp_path: Path) -> None:
    written = micro_data.write_medical(sets, tmp_path / "medical.npz")

    read = micro_data.read_medical([tmp_path / "medical.npz"])

    assert read.names == tuple(folder.name for folder in sets) == written.names
    assert read.numbers.tolist() == [0, 0, 1]
    assert read.images.shape == (3, 3, 96, 96)
    assert (read.images.float() - 50).abs().max() < 3
    assert torch.equal(micro_data.read_medical(sets).images, written.images)
    val = micro_data.read_classes(sets[0], "val", 64)
    assert val.names == ("good", "ill")
    assert val.numbers.tolist() == [0, 1]
    assert (val.images == 120).all()


def test_weights_travel_in_half_precision(tmp_path: Path) -> None:
    state = {"encoder.a": torch.rand(3), "encoder.n": torch.arange(2), "decoder.b": torch.rand(3)}
    save_file(state, tmp_path / "whole.safetensors")

    micro_data.write_half(tmp_path / "whole.safetensors", tmp_path / "half.safetensors", "encoder.")

    kept = load_file(tmp_path / "half.safetensors")
    assert kept.keys() == {"encoder.a", "encoder.n"}
    assert torch.equal(kept["encoder.a"], state["encoder.a"].half())
    assert kept["encoder.n"].dtype == torch.int64
    with pytest.raises(VptError, match="no tensor's name begins with 'x'"):
        micro_data.write_half(tmp_path / "whole.safetensors", tmp_path / "half.safetensors", "x")


def test_student_and_teacher_see_the_same_view() -> None:
    ramp = torch.linspace(0, 1, 64).expand(6, 3, 64, 64)
    picture = ramp + ramp.mT * 0.1
    views = draw_views(6, torch.Generator().manual_seed(0))
    small, large = views.cut(picture, 64), views.cut(picture, 112, "bicubic")
    shares = draw_mixing(np.random.default_rng(3), torch.device("cpu"))
    pooled = torch.nn.functional.adaptive_avg_pool2d
    assert torch.allclose(pooled(mixed(small, shares), 8), pooled(mixed(large, shares), 8), atol=0.02)


def test_every_group_has_its_own_scale_and_map() -> None:
    torch.manual_seed(0)
    groups = [torch.randn(400, 5) * 3 + 7, torch.randn(400, 5) - 2]
    scale = Scale.of(groups)
    for k, rows in enumerate(groups):
        found = scale.apply(rows[:, None], torch.full((400,), k))
        assert found.mean().abs() < 1e-4
        assert found.std() == pytest.approx(1, abs=0.01)
    linear, tokens = GroupLinear(2, 4, 3), torch.randn(2, 6, 4)
    found = linear(tokens, torch.eye(2))
    assert torch.allclose(found[1], tokens[1] @ linear.weight[1].view(4, 3) + linear.bias[1], atol=1e-6)


def test_a_compiler_that_fails_is_named_and_done_without(capsys: pytest.CaptureFixture[str]) -> None:
    vit = create_model("test_vit", num_classes=0)
    images = torch.randn(1, 3, 160, 160)
    before = vit(images)

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("no compiler here")

    for block in vit.blocks:
        block.compile = lambda block=block: setattr(block, "_compiled_call_impl", broken)
    compile_blocks(vit, 1, 160, torch.float32)

    assert "NOT COMPILED, width 64: RuntimeError: no compiler here" in capsys.readouterr().out
    assert torch.equal(vit(images), before)

"""Blocks that run once for what they see: the same training, in less time; what is stored, found again, and refused."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_classes import CLASS_SETTINGS
from tiny_run import SETTINGS, assert_same_run, rows
from torch.utils.data import default_collate

import vpt.engine.storing as engine
from vpt.config import load_config
from vpt.data.slices.slice_stacks import StackDataset, draw_stacks
from vpt.data.slices.stored import Store
from vpt.data.transforms import identity
from vpt.engine.run import train
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import Setup, prepare_setup
from vpt.engine.signals import Interrupted
from vpt.engine.storing import PrefixPlan, views_to_store
from vpt.errors import VptError
from vpt.tasks.frozen import FrozenPrefix

# The head reads after blocks 1, 3, 5 and 7 of 8; prompts act from 6 on, with dropout, which draws from torch's state.
LATE = SETTINGS | {"prompts": SETTINGS["prompts"] | {"blocks": "last:2"}, "precision": "32-true"}
PLAIN = LATE | {"train.augment": "none", "plan.pixel_mm": 2.0}  # every slice fits
VIEWS = LATE | {"train.views": 3}
HEAD_ONLY = PLAIN | {"prompts": {"method": "none"}}
CROPPED = {"plan.pixel_mm": 1.0}  # of slices of 40 to 56 mm
UNSTORED = {"train.cache_gb": 0}
LOSSES = 2e-3  # of a loss: rows are rounded to 11 bits, see `HALF` in tests/tasks/test_frozen.py


def run(data: Path, out: Path, settings: dict[str, Any], **options: Any) -> Path:
    return train(data, out, overrides=settings, brief=True, **options)


def log(run: Path) -> str:
    return (run / "train.log").read_text()


def prepared(run: Path, setup: Setup, cache: Path) -> Segmenting:
    job = Segmenting(run, setup, cache)
    job.prepare()
    return job


def stores(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*.npy") if re.search(r"\.(block\d|pooled_\w+)\.npy$", path.name))


def assert_alike(stored: Path, unstored: Path, direction: float = 0.999) -> None:
    """Two runs within the precision of what is stored: losses, scores, and the direction of what was learned."""
    for mine, other in zip(rows(stored), rows(unstored), strict=True):
        assert float(mine["loss"]) == pytest.approx(float(other["loss"]), rel=LOSSES)
    ours, theirs = load_file(stored / "last.safetensors"), load_file(unstored / "last.safetensors")
    assert ours.keys() == theirs.keys()
    for key in ours:  # AdamW moves by the sign where a gradient is near zero
        assert torch.nn.functional.cosine_similarity(ours[key].flatten(), theirs[key].flatten(), dim=0) > direction, key


# --- training on what is stored ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        (PLAIN, "block6", "the first 6 of 8 blocks run once per slice"),
        (HEAD_ONLY, "block8", "all 8 blocks run once per slice"),
        (VIEWS, "block6", "the first 6 of 8 blocks run once for each of 3 views of a slice"),
        (VIEWS | {"precision": "bf16-mixed"}, "block6", "run once for each of 3 views of a slice"),
        (PLAIN | CROPPED | {"train.views": 2}, "block6", "the first 6 of 8 blocks run once for each of 2 views"),
    ],
    ids=["fixed", "head alone", "augmented views", "bfloat16", "cropped views"],
)
def test_segmentation_learns_the_same_from_what_is_stored(
    tiny_data: Path, tmp_path: Path, settings: dict[str, Any], kind: str, said: str
) -> None:
    cache = tmp_path / "cache"
    stored = run(tiny_data, tmp_path / "stored", settings, cache=cache)
    assert [path.name.split(".")[1] for path in stores(cache)] == [kind]
    assert said in log(stored)
    unstored = run(tiny_data, tmp_path / "unstored", settings | UNSTORED, cache=cache)
    assert len(stores(cache)) == 1
    assert re.search(r"run in every step: storing .* more than train.cache_gb=0; raise that", log(unstored))
    assert_alike(stored, unstored, 0.99 if settings["precision"] == "bf16-mixed" else 0.999)  # of 8 bits


@pytest.mark.slow
def test_classification_learns_the_same_from_stored_views(tiny_classes: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    late = {"prompts": {"method": "deep", "count": 2, "blocks": "last:2"}, "precision": "32-true", "train.views": 2}
    stored = run(tiny_classes, tmp_path / "stored", CLASS_SETTINGS | late, cache=cache)
    unstored = run(tiny_classes, tmp_path / "unstored", CLASS_SETTINGS | late | UNSTORED, cache=cache)
    assert sorted(len(np.load(path, mmap_mode="r")) for path in stores(cache)) == [6, 24]  # 6 to validate, 2 x 12
    assert "run once for each of 2 views of an example" in log(stored)
    assert_alike(stored, unstored)


@pytest.mark.slow
def test_a_head_alone_that_classifies_learns_from_stored_views(tiny_classes: Path, tmp_path: Path) -> None:
    cache, alone = tmp_path / "cache", {"prompts": {"method": "none"}, "precision": "32-true", "train.views": 2}
    stored = run(tiny_classes, tmp_path / "stored", CLASS_SETTINGS | alone, cache=cache)
    unstored = run(tiny_classes, tmp_path / "unstored", CLASS_SETTINGS | alone | UNSTORED, cache=cache)
    assert len(stores(cache)) == 2
    assert_alike(stored, unstored)


@pytest.mark.slow
def test_sam_with_its_own_decoder_and_hints_learns_the_same(tiny_data: Path, tmp_path: Path) -> None:
    sam = {"backbone.name": "sam_micro", "head": {"kind": "sam_decoder", "hints": True}, "train.epochs": 1}
    runs = [run(tiny_data, tmp_path / str(gb), HEAD_ONLY | sam | {"train.cache_gb": gb}) for gb in (8, 0)]
    assert "all 8 blocks run once per slice" in log(runs[0])
    assert_alike(*runs)


@pytest.mark.slow
def test_workers_read_the_same_rows(tiny_data: Path, tmp_path: Path) -> None:
    one, several = (run(tiny_data, tmp_path / str(n), VIEWS | {"train.workers": n}) for n in (0, 2))
    assert rows(one) == rows(several)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    tiny_data: Path, tmp_path: Path, signal_at: Callable[..., None], step: int
) -> None:
    whole = run(tiny_data, tmp_path / "whole", VIEWS)
    signal_at(step, signal.SIGINT)
    with pytest.raises(Interrupted):
        run(tiny_data, tmp_path / "run", VIEWS)
    made = stores(tmp_path / "run" / "cache")
    seen: list[int] = []
    torch.manual_seed(12345)  # as a new process would start, elsewhere
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "write_rows", lambda *args: seen.append(1))
        train(None, tmp_path / "run", resume=True, brief=True)
    assert len(made) == 1
    assert seen == []  # the store of the interrupted run is taken
    assert_same_run(tmp_path / "run", whole)
    assert not (tmp_path / "run" / "cache").exists()


# --- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_serves_the_same_weights_plan_images_and_views_only(
    copied_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever decides what the blocks see and give; not what trains, nor its rate."""
    cache, calls, encode = tmp_path / "cache", [], FrozenPrefix.rows
    monkeypatch.setattr(FrozenPrefix, "rows", lambda part, images: calls.append(1) or encode(part, images))

    def fills(**changes: Any) -> bool:
        before = len(calls)
        prepared(tmp_path, prepare_setup(load_config(copied_data, VIEWS | changes)), cache)
        return len(calls) > before

    assert fills()
    assert not fills()
    assert not fills(**{"optim.prompt_lr": 1e-3, "prompts": {"method": "cross", "count": 2, "blocks": "last:2"}})
    for change in (
        {"backbone.weights": "random"},
        {"plan.image_size": 64},
        {"plan.neighbours": False},
        {"train.augment": "strong"},
        {"precision": "bf16-mixed"},
        {"train.views": 2},
        {"head": {"kind": "mask", "levels": 2}},
        {"prompts": {"method": "deep", "count": 2, "blocks": "last:3"}},
    ):
        assert fills(**change), change
    scan = copied_data / "imagesTr" / "blobs_000_0000.nii.gz"  # of the training side
    scan.write_bytes(scan.read_bytes())
    assert fills()


@pytest.mark.slow
def test_processes_that_want_the_same_store_make_it_once(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepare_setup(load_config(tiny_data, VIEWS))
    cache, made, write = tmp_path / "cache", [], engine.write_rows
    monkeypatch.setattr(engine, "write_rows", lambda *args: made.append(1) or write(*args))
    jobs: list[Segmenting] = []
    unstored = prepare_setup(load_config(tiny_data, VIEWS | UNSTORED))
    prepared(tmp_path, unstored, cache)  # the cases are prepared
    threads = [threading.Thread(target=lambda: jobs.append(prepared(tmp_path, setup, cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs) == 3
    assert len(made) == 1


@pytest.mark.slow
def test_rows_beyond_half_precision_are_refused_before_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = FrozenPrefix.rows
    monkeypatch.setattr(FrozenPrefix, "rows", lambda part, images: 1e6 * encode(part, images))
    with pytest.raises(VptError, match=r"beyond half precision.*train.cache_gb=0"):
        run(tiny_data, tmp_path / "run", VIEWS)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"train.views": 0}, CROPPED | {"train.augment": "none", "train.views": 0}, {"tuning": "bias"}],
    ids=["augmented anew", "cropped anew", "a tuned backbone"],
)
def test_nothing_is_stored_that_would_not_stay_the_same(
    tiny_data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    job = prepared(tmp_path, prepare_setup(load_config(tiny_data, VIEWS | change)), tmp_path / "cache")
    assert stores(tmp_path / "cache") == []
    (doubt,) = job.doubts()
    assert "train.views" in doubt


def test_only_what_a_short_training_draws_is_stored() -> None:
    data = StackDataset(np.zeros((10, 1, 3, 8, 8), np.uint8), np.zeros((10, 1), np.float32), identity, views=4)

    def draw(epoch: int) -> Any:
        return draw_stacks(10, steps=3, batch_size=4, seed=0, epoch=epoch)

    few = views_to_store(data, draw, epochs=2)
    wanted = {data.number(one) for epoch in range(2) for batch in draw(epoch) for one in batch}
    assert few.tolist() == sorted(wanted)
    assert len(few) < 24
    assert views_to_store(data, draw, epochs=4).tolist() == list(range(40))  # whatever the seed
    data.views = 0
    assert len(views_to_store(data, draw, epochs=2)) == 0


@pytest.mark.slow
def test_what_is_stored_is_no_dead_end_for_gradients(tiny_data: Path, tmp_path: Path) -> None:
    job = prepared(tmp_path, prepare_setup(load_config(tiny_data, VIEWS)), tmp_path / "cache")
    batch = default_collate([job.dataset[draw] for draw in job.draw(0)[0]])
    assert batch.keys() == {"images", "truth", "rows"}
    assert batch["rows"].dtype == torch.float16
    assert not batch["rows"].is_inference()
    job.loss(job.forward(batch), batch).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in job.model.trained().values())
    stored = job.dataset.dataset
    store: Store = stored.store
    assert len(store.rows()) == len(store.numbers) <= stored.slices.count


# --- what is said -----------------------------------------------------------------------------------------------------

PREFIX = PrefixPlan(first=9, depth=12, views=4, fixed=False, gb=2.345, limit=10, unit="slice", share=0.75)


@pytest.mark.parametrize(
    ("change", "stored", "said"),
    [
        ({}, True, "the first 9 of 12 blocks run once for each of 4 views of a slice, .*: 2.3 GB of their output are"),
        ({"views": 1, "fixed": True, "gb": 1e-5}, True, "run once per slice, not in every epoch: under 0.01 GB of"),
        ({"first": 12, "unit": "example"}, True, "all 12 blocks run once for each of 4 views of an example"),
        (
            {"limit": 2},
            False,
            "in every step: storing their output would take 2.3 GB, more than train.cache_gb=2",
        ),
        ({"views": 0}, False, "with train.views=4 they run once for each of 4 views of a slice, and up to 9.4 GB are"),
        ({"first": 0}, False, "train.views=4: no block stays as it was, so fixed views save no time; leave it out"),
        ({"first": 0, "views": 0}, False, None),
        ({"first": 0, "views": 1, "fixed": True}, False, None),
        ({"views": 0, "limit": 8}, False, "with train.views=4 and train.cache_gb=10 they run once for each of 4 views"),
        ({"first": 4, "share": 0.42, "views": 0}, False, "first 4 of 12 blocks .*, about 42% of a forward pass, since"),
        ({"first": 4, "share": 0.33, "views": 0}, False, None),
    ],
)
def test_a_run_says_what_is_stored_or_what_would_pay(change: dict[str, Any], stored: bool, said: str | None) -> None:
    prefix = replace(PREFIX, **change)
    assert prefix.stored == stored
    if said is None:
        assert prefix.doubts() == []
    else:
        (doubt,) = prefix.doubts()
        assert re.search(said, doubt)

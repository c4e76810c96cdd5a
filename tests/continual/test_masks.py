"""Organs in turn on tiny images: every method, its matrix of Dice, whose task was chosen, and the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from organs_in_turn import STEP, write_organ
from PIL import Image

from vpt.cli.continual import table_of
from vpt.continual import Protocol, run_protocol
from vpt.continual.mask_tasks import make_mask_tasks
from vpt.continual.masks_at_once import put_together
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.files import read_json, write_json
from vpt.scores.continual import mask_score


def test_a_case_counts_with_what_is_there_or_found() -> None:
    there, half, nothing = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool), np.zeros(4, bool)
    assert mask_score({"liver": half}, {"liver": there}) == pytest.approx(2 / 3)
    assert mask_score({"liver": half, "lung": nothing}, {"liver": there}) == pytest.approx(2 / 3)
    assert mask_score({"lung": there}, {"liver": there}) == 0
    assert mask_score({"lung": there, "liver": there}, {"liver": there}) == 0.5
    assert mask_score({"liver": nothing}, {"liver": nothing}) == 1
    assert mask_score({"lung": half}, {"liver": nothing}) == 0


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("organs")
    return write_organ(root / "discs", "disc"), write_organ(root / "squares", "square", value=255)


def test_methods_and_sets_that_do_not_fit_are_refused(organs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        VptError, match="ranpac: not for tasks that segment; expected some of own, sequential, head, joint"
    ):
        run_protocol(Protocol(data=organs, methods=("ranpac",)), tmp_path)
    with pytest.raises(VptError, match="one task; give two data sets with masks at least"):
        run_protocol(Protocol(data=organs[:1]), tmp_path)


def test_sets_of_several_kinds_are_refused_before_the_first_training(
    organs: tuple[Path, Path], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    volumes = make_dataset(cases=3)
    write_json(volumes / "split.json", {"train": ["case_00"], "val": ["case_01"], "test": ["case_02"]})
    with pytest.raises(
        VptError, match=r"has volumes of 1 channel, .*discs images of 1 channel; a sequence is of files"
    ):
        make_mask_tasks(Protocol(data=(organs[0], volumes), shuffle=False), 0)


@pytest.mark.slow
def test_tasks_of_their_own_forget_nothing(organs: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {key: value for key, value in STEP.items() if key != "prompts"} | {"train.max_steps": 20}
    wanted = Protocol(data=organs, shuffle=False, settings=settings, prompts={"own": {"blocks": "last:2"}})
    own, sequential, head = run_protocol(wanted, tmp_path)
    for each in (own, sequential, head):
        order = each.orders[0]
        assert order.tasks == ("discs", "squares")
        assert [len(row) for row in order.matrix or ()] == [1, 2]
        assert len(order.right) == len(order.told) == len(order.chosen or ()) == 4
        assert each.chosen == 1
        assert order.told == order.right
    before, after = own.orders[0].matrix or ()
    assert after[0] == before[0] > 0.5, "what is chosen rightly is answered as ever"
    assert sequential.orders[0].matrix is not None
    assert sequential.orders[0].matrix[1][0] != before[0], "the prompts have moved under the old head"
    page = (tmp_path / "continual.html").read_text()
    for said in ("Dice on all tasks so far", "task chosen rightly", "prompts and head of its own"):
        assert said in page
    written = read_json(tmp_path / "continual.json")["methods"]
    assert [each["chosen_rightly"] for each in written] == [1, 1, 1]
    again = run_protocol(wanted.model_copy(update={"methods": ("own",)}), tmp_path)
    assert again[0].orders == own.orders


# --- all tasks at once ------------------------------------------------------------------------------------------------


def test_sets_put_together_are_numbered_alike_and_say_what_each_was_annotated_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sites of one organ, and another organ whose value is taken; into a folder that is named from here."""
    paths = (
        write_organ(tmp_path / "here", "disc", "liver"),
        write_organ(tmp_path / "there", "square", "liver", value=255, first=10),
        write_organ(tmp_path / "chest", "disc", "lung", first=20),
    )
    tasks = make_mask_tasks(Protocol(data=paths, shuffle=False), 0)
    monkeypatch.chdir(tmp_path)
    found = read_dataset(put_together(tasks, Path("all")), None, None)
    assert found.labels == {0: "background", 1: "liver", 2: "lung"}
    sides = read_splits(found)
    assert not sides.test
    assert len(sides.train) == sum(len(task.splits.train) for task in tasks)
    assert len(sides.val) == sum(len(task.splits.val) for task in tasks)
    for task, label in zip(tasks, (1, 1, 2), strict=True):
        for name in (*task.splits.train, *task.splits.val):
            case, own = found.case(f"{task.name}__{name}"), task.dataset.case(name)
            assert case.images == (own.images[0].resolve(),)
            assert case.annotated == {label}
            assert found.patient(case.name) == f"{task.name}/{task.dataset.patient(name)}"
            mask, truth = np.asarray(Image.open(case.label)), np.asarray(Image.open(own.label))
            assert np.array_equal(mask == label, truth > 0)
            assert set(np.unique(mask)) == {0, label}


def test_what_cannot_be_put_together_is_refused(organs: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_organ(tmp_path / "partly", "disc")
    described = read_json(other / "dataset.json")
    write_json(other / "dataset.json", {**described, "labels": {**described["labels"], "ignore": 7}})
    tasks = make_mask_tasks(Protocol(data=(organs[1], other), shuffle=False), 0)
    with pytest.raises(VptError, match="joint: partly has voxels that count nowhere"):
        put_together(tasks, tmp_path / "all")


@pytest.mark.slow
def test_all_at_once_learns_every_task_and_is_told_what_belongs_to_it(
    organs: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = {key: value for key, value in STEP.items() if key != "prompts"} | {"train.max_steps": 30}
    wanted = Protocol(data=organs, methods=("head", "joint"), shuffle=False, settings=settings)
    head, joint = run_protocol(wanted, tmp_path)
    columns = [[list(column.cells)[-1] for column in table_of(shown).columns] for shown in ([joint], [head, joint])]
    assert columns[0][:1] == columns[1][:1] == ["all tasks at once"]
    assert columns[1].count("-") == 3, "no matrix, and no task chosen"
    order = joint.orders[0]
    assert order.matrix is None
    assert joint.chosen is None
    assert len(order.right) == 4
    assert all(order.told[name] >= score for name, score in order.right.items()), "labels of others only lower it"
    assert np.mean(list(order.told.values())) > 0.4
    run = tmp_path / "joint-0" / "all"
    assert (run / "best.safetensors").is_file()
    assert "all tasks at once" in (tmp_path / "continual.html").read_text()

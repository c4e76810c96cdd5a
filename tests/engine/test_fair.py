"""Runs that treat groups alike: they resume bit for bit, choose by the worst group, and their artifacts are used."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_classes import CLASS_SETTINGS, CLASSES, HEAD_ONLY, ONE_CLASS_STEP, SIDES, stripes
from tiny_run import SETTINGS, assert_same_run, rows
from together import SETTINGS as TOGETHER
from together import assert_alike, in_processes

from vpt.artifact import read_artifact
from vpt.data.layouts import read_dataset
from vpt.engine.learning import Learner
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError
from vpt.fair.group_dro import GroupDro
from vpt.model import Output
from vpt.restoring import restore_model
from vpt.tasks.batch import LearningLoss
from vpt.tasks.classification import class_loss
from vpt.use.bank import Bank
from vpt.use.load import load

WAYS: dict[str, dict[str, Any]] = {
    "group_dro": {"method": "group_dro", "by": "site", "step": 0.5, "choose": "mean"},
    "reprogram": {"method": "reprogram", "by": "site", "choose": "mean", "width": 3},
}


@pytest.fixture(scope="module")
def sited_classes(tiny_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `tiny_classes` as a list with a column `site`."""
    root = tmp_path_factory.mktemp("tiny") / "sited"
    shutil.copytree(tiny_classes, root)
    (root / "split.json").unlink()
    lines = [["path", "label", "split", "site"]]
    for side, numbers in SIDES.items():
        lines += [[f"{name}/im{k}.png", name, side, "ab"[k % 2]] for name in CLASSES for k in numbers]
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    return root / "labels.csv"


@pytest.fixture(scope="module")
def fair_runs(sited_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each of WAYS: two epochs of three steps. Read only."""
    root = tmp_path_factory.mktemp("fair")
    return {
        name: train(sited_classes, root / name, overrides=CLASS_SETTINGS | {"fair": way}, brief=True)
        for name, way in WAYS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(
    way: str, fair_runs: dict[str, Path], sited_classes: Path, tmp_path: Path, class_signal_at: Callable[..., None]
) -> None:
    class_signal_at(4 if way == "reprogram" else 6)  # of group DRO the loss is asked once for each group
    with pytest.raises(Interrupted):
        train(sited_classes, tmp_path / "run", overrides=CLASS_SETTINGS | {"fair": WAYS[way]}, brief=True)
    state = load_file(tmp_path / "run/state/last.safetensors")
    assert [name for name in state if name.startswith("loss.")], "what the loss has learned is part of the state"
    train(None, tmp_path / "run", resume=True, brief=True)
    assert_same_run(tmp_path / "run", fair_runs[way])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["balanced", *WAYS])
def test_two_processes_learn_what_one_learns(way: str, sited_classes: Path, tmp_path: Path) -> None:
    """A group's loss, and what a rival sees, are of the whole batch, whoever has which share of it."""
    fair = WAYS.get(way, {"method": way, "by": "site", "choose": "mean"})

    def run(out: str) -> Path:
        settings = TOGETHER | {"optim.method": "sgd", "fair": fair}  # AdamW moves by rounding as far as by all else
        return train(sited_classes, tmp_path / out, overrides=settings, brief=True)

    one, ended = run("one"), in_processes(lambda number: run("two"), tmp_path)
    assert [each.code for each in ended] == [0, 0], ended
    assert_alike(tmp_path / "two", one)


@pytest.mark.slow
def test_the_artifact_holds_what_is_added_and_prediction_adds_it(fair_runs: dict[str, Path]) -> None:
    run = fair_runs["reprogram"]
    artifact = read_artifact(run)
    assert artifact.tensors["trigger.offset"].abs().max() > 0
    assert artifact.counts["trigger"] == 3 * (32**2 - 26**2)
    model = restore_model(artifact)
    assert (model.first_trained_block(), model.trigger is not None) == (0, True)

    picture = stripes(1, 0)
    classifier = load(run, device="cpu")
    with_it = classifier.classify(picture)
    classifier.model.trigger.offset.data.zero_()
    assert classifier.classify(picture) != with_it


@pytest.mark.slow
def test_in_a_bank_each_adds_its_own(fair_runs: dict[str, Path]) -> None:
    bank = Bank("vit_micro", device="cpu")
    for name, run in fair_runs.items():
        bank.add(name, run)
    picture = stripes(2, 1)
    together = bank.classify(picture)
    for name, run in fair_runs.items():
        alone = load(run, device="cpu").classify(picture)
        assert list(together[name].values()) == pytest.approx(list(alone.values()), abs=1e-5)


@pytest.mark.slow
def test_masks_are_learned_in_every_way(tiny_data: Path, tmp_path: Path) -> None:
    names = [case.name for case in read_dataset(tiny_data).cases]
    with open(tmp_path / "people.csv", "w", newline="") as file:
        csv.writer(file).writerows([["case", "sex"], *([name, "fm"[k % 2]] for k, name in enumerate(names))])
    fair = {"by": "sex", "groups": str(tmp_path / "people.csv"), "choose": "mean"}
    for method in ("balanced", "group_dro", "reprogram"):
        run = train(tiny_data, tmp_path / method, overrides=SETTINGS | {"fair": {"method": method, **fair}}, brief=True)
        assert len(rows(run)) == 2
    assert read_artifact(run).counts["trigger"] > 0


def test_too_few_to_choose_by_leave_nothing_behind(sited_classes: Path, tmp_path: Path) -> None:
    wanted = ONE_CLASS_STEP | {"fair": {"method": "balanced", "by": "site"}}
    with pytest.raises(VptError, match=r"set fair\.choose=mean, or validate with more cases"):
        train(sited_classes, tmp_path / "run", overrides=wanted)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_groups_stand_beside_stored_rows_too(sited_classes: Path, tmp_path: Path) -> None:
    fair = {"fair": {"method": "group_dro", "by": "site", "by_class": True, "choose": "mean"}}
    train(sited_classes, tmp_path / "run", overrides=HEAD_ONLY | fair, brief=True)
    weights = load_file(tmp_path / "run/state/last.safetensors")["loss.weights"]
    assert (len(weights), float(weights.sum())) == (6, pytest.approx(1))
    assert weights.std() > 0


@pytest.mark.slow
def test_no_run_goes_on_from_what_adds_to_images(
    fair_runs: dict[str, Path], sited_classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(VptError, match="so no run goes on from it or to it; start anew without --from"):
        train(sited_classes, tmp_path / "run", start=fair_runs["reprogram"])


class Counting(LearningLoss):
    """Remembers how often it was asked; its first answer is not finite, or more than memory holds."""

    def __init__(self, first: float | Exception):
        self.asked, self.first, self.calls = 0, first, 0

    def __call__(self, output: Output, batch: Any) -> torch.Tensor:
        self.asked, self.calls = self.asked + 1, self.calls + 1
        if self.calls == 1 and isinstance(self.first, Exception):
            raise self.first
        return output.logits.mean() * (self.first if self.calls == 1 and isinstance(self.first, float) else 1.0)

    def state(self) -> dict[str, torch.Tensor]:
        return {"asked": torch.tensor(self.asked)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.asked = int(state["asked"])


class OnLinear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, batch: Any) -> Output:
        return Output(self.layer(batch["images"]))


@pytest.mark.parametrize(("first", "learned"), [(1.0, 1), (np.nan, 0), (MemoryError(), 1)])
def test_a_loss_learns_of_a_batch_once_or_not_at_all(first: Any, learned: int) -> None:
    """Not of one whose loss is not finite, and once of one that memory first did not hold."""
    from lightning.fabric import Fabric

    fabric, model, loss = Fabric(accelerator="cpu", devices=1), OnLinear(), Counting(first)
    forward, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    Learner(fabric, forward, optimizer, loss).update([{"images": torch.ones(2, 2)}])
    assert loss.asked == learned


def test_a_batch_in_parts_is_learned_of_as_the_whole() -> None:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    batch = {
        "images": torch.randn(6, 2, generator=torch.Generator().manual_seed(0)),
        "truth": torch.eye(2)[[0, 1, 0, 1, 1, 0]],
        "groups": torch.tensor([0, 0, 0, 1, 1, 0]),
    }
    found = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model, loss = OnLinear(), GroupDro(class_loss("classes"), 2, 0.5, torch.device("cpu"))
        forward, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        Learner(fabric, forward, optimizer, loss, parts=parts).update([batch])
        found.append((loss.state()["weights"], model.layer.weight.detach().clone()))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)

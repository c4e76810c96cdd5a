"""What processes that train together tell each other: one launch, of which every test asks another thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from together import in_processes
from torch import nn

from vpt.config import load_config
from vpt.data.label_values import IGNORED
from vpt.engine import setup
from vpt.engine.joining import together
from vpt.engine.learning import Learner
from vpt.engine.processes import place_of
from vpt.engine.ranks import ALONE, Ranks, require_own
from vpt.engine.signals import heed_signals
from vpt.errors import VptError
from vpt.tasks.batch import Batch, Loss, Output
from vpt.tasks.classification import class_loss
from vpt.tasks.segmentation import dice_ce, where_it_counts

COUNT = 5  # samples of a batch: three for one process, two for the other


class Pixelwise(nn.Module):
    """A convolution with a penalty of its own; too large for the memory of process `small` at first."""

    def __init__(self, small: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.unused = nn.Parameter(torch.ones(2))
        self.most = 1 if small else 100

    def forward(self, batch: Batch) -> Output:
        images = batch["images"]
        if len(images) > self.most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes")
        return Output(self.layer(images), 0.1 * self.layer.weight.square().sum() + images.mean())


class Vectors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, batch: Batch) -> Output:
        return Output(self.layer(batch["images"]))


def pixels(count: int = COUNT) -> Batch:
    generator = torch.Generator().manual_seed(count)
    truth = torch.randint(0, 3, (count, 6, 6), generator=generator)
    truth[0] = IGNORED  # so that the shares have other denominators
    truth[-1, :, :4] = IGNORED
    return Batch(images=torch.randn(count, 3, 6, 6, generator=generator), truth=truth)


def examples(count: int = COUNT) -> Batch:
    generator = torch.Generator().manual_seed(count)
    truth = nn.functional.one_hot(torch.arange(count) % 3, 3).float()
    return Batch(images=torch.randn(count, 4, generator=generator), truth=truth)


PIXELS: Loss = where_it_counts(dice_ce([1, 5, 2]))
EXAMPLES: Loss = class_loss("classes", [1, 9, 2])


def learner(module: nn.Module, loss: Loss, ranks: Ranks, say: Callable[[str], None] = print) -> Learner:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    forward, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    return Learner(fabric, forward, optimizer, loss, clip=None, say=say, ranks=ranks)


def shared(batch: Batch, ranks: Ranks) -> Batch:
    """This process's samples."""
    own = ranks.share(list(range(len(batch["images"]))))
    return Batch(**{name: part[list(own)] for name, part in batch.items()})


def learn(module: nn.Module, loss: Loss, batches: list[Batch], ranks: Ranks) -> dict[str, Any]:
    """What becomes of a group of batches, and of the weights."""
    told: list[str] = []
    found = learner(module, loss, ranks, told.append).update(
        [shared(batch, ranks) for batch in batches], [len(batch["images"]) for batch in batches]
    )
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    return {"losses": found.losses, "fault": found.fault, "spoilt": found.spoilt, "told": told, **weights}


def spoilt(batch: Batch) -> Batch:
    images = batch["images"].clone()
    images[-1] = torch.nan  # of the second process's share
    return Batch(images=images, truth=batch["truth"])


def trials(ranks: Ranks) -> dict[str, Any]:
    """All of them, in this process's part or alone."""
    second = ranks.several and not ranks.first
    return {
        "pixels": learn(Pixelwise(), PIXELS, [pixels(), pixels(3)], ranks),
        "examples": learn(Vectors(), EXAMPLES, [examples()], ranks),
        "one": learn(Vectors(), EXAMPLES, [examples(1)], ranks),
        "spoilt": learn(Pixelwise(), PIXELS, [spoilt(pixels())], ranks),
        "too large": learn(Pixelwise(small=second), PIXELS, [pixels()], ranks),
    }


def collectives(ranks: Ranks) -> dict[str, Any]:
    with ranks.apart():
        drawn = float(torch.rand(1))
    return {
        "dealt": ranks.collected([item * 10 for item in ranks.dealt(range(5))], 5),
        "told": ranks.told(lambda: f"by {ranks.number}"),
        "most": ranks.most(ranks.number),
        "total": ranks.total(0.5 + ranks.number),
        "drawn": drawn,
        "generator": torch.get_rng_state().tolist(),
    }


def work(number: int) -> dict[str, Any]:
    torch.manual_seed(7)
    with heed_signals() as signals, together(signals, place_of()) as ranks:
        return {"trials": trials(ranks), "collectives": collectives(ranks)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    ended = in_processes(work, tmp_path_factory.mktemp("ranks"))
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]
    return [each.made for each in ended]


@pytest.mark.slow
@pytest.mark.parametrize("trial", ["pixels", "examples", "one", "too large"])
def test_shares_of_a_batch_are_learned_from_as_the_whole(made: list[dict[str, Any]], trial: str) -> None:
    expected = trials(ALONE)[trial]
    for each in made:
        found = each["trials"][trial]
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert found["fault"] is None
        for name in expected.keys() - {"losses", "fault", "spoilt", "told"}:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_all_processes_have_the_same_weights_to_the_bit(made: list[dict[str, Any]]) -> None:
    first, second = (each["trials"]["pixels"] for each in made)
    assert torch.equal(first["layer.weight"], second["layer.weight"])


def test_what_no_process_has_a_gradient_of_stays(made: list[dict[str, Any]]) -> None:
    assert all(torch.equal(each["trials"]["pixels"]["unused"], torch.ones(2)) for each in made)


def test_a_batch_that_is_not_finite_in_one_process_is_left_out_by_all(made: list[dict[str, Any]]) -> None:
    untouched = Pixelwise().layer.weight
    for each in made:
        found = each["trials"]["spoilt"]
        assert (found["fault"], found["spoilt"]) == ("the loss is nan", ((0, COUNT - 1),))
        assert torch.equal(found["layer.weight"], untouched)


def test_a_batch_too_large_for_one_process_is_halved_by_all(made: list[dict[str, Any]]) -> None:
    first, second = (each["trials"]["too large"]["told"] for each in made)
    assert first == second
    assert [line.partition(":")[0] for line in first] == ["too little memory for a batch of 3"] * 2


def test_what_is_told_and_collected(made: list[dict[str, Any]]) -> None:
    first, second = (each["collectives"] for each in made)
    drawn = first.pop("drawn"), second.pop("drawn")
    assert drawn[0] != drawn[1]
    assert first.pop("generator") == second.pop("generator")
    assert first == second == {"dealt": [0, 10, 20, 30, 40], "told": "by 0", "most": 1, "total": 2.0}


def test_one_process_is_left_alone() -> None:
    ranks = ALONE
    assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert (ranks.first, ranks.several, ranks.any(True), ranks.most(3), ranks.total(2.5)) == (True, False, True, 3, 2.5)
    assert ranks.collected([1, 2], 2) == [1, 2]


@pytest.mark.parametrize("count", [1, 2, 5, 8, 33])
def test_shares_cover_a_batch_once(count: int) -> None:
    samples = list(range(count))
    shares = [samples[Ranks(number, 3).place(count)] for number in range(3)]
    assert [sample for share in shares for sample in share] == samples
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(Ranks(number, 3).share(samples) for number in range(3))


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda:1", "device=cuda:1: 2 processes train together; set device=cuda"), ("cuda", "2 processes on this machine")],
)
def test_processes_of_a_machine_share_no_gpu(device: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(VptError, match=said):
        require_own(torch.device(device), Ranks(1, 2, 2))
    require_own(torch.device(device), ALONE)
    require_own(torch.device("cuda"), Ranks(1, 2, 1))
    require_own(torch.device("cpu"), Ranks(1, 2, 2))


def test_a_folder_that_other_machines_do_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "SEEN", 0.0)
    with pytest.raises(VptError, match="all machines of a training need the same folder"):
        setup.follow_run(tmp_path, load_config({"data": {"path": str(tmp_path)}}))

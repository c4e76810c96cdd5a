"""Prompts and heads of others: what an artifact could not hold is refused before the training, what is idle is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from plans import plan_with
from tiny_classes import CLASS_SETTINGS, ONE_CLASS_STEP
from torch import Tensor, nn

import vpt
from vpt.building import build_model
from vpt.config import load_config
from vpt.engine.restorable import require_restorable
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.heads.base import Answer, Head, HeadSettings
from vpt.prompts import DeepPrompts
from vpt.prompts.base import PromptSettings
from vpt.sections import HEADS, PROMPTS


class Drawn(DeepPrompts):
    """With numbers that are drawn and in no state."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count=count)
        self.basis = torch.randn(count, spec.blocks[0].width)

    def context(self, i: int, batch: int) -> Tensor:
        found = super().context(i, batch)
        assert isinstance(found, Tensor)
        return found + self.basis


class Frozen(Drawn):
    """With the same as a parameter that does not train."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count)
        basis = self.basis
        del self.basis
        self.basis = nn.Parameter(basis, requires_grad=False)


class Known(Frozen):
    """With numbers in it that are always the same."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count)
        with torch.no_grad():
            self.basis.copy_(torch.linspace(-1, 1, self.basis.numel()).view_as(self.basis))


class Gated(Drawn):
    """With numbers that are drawn and do nothing at first, since what trains and is multiplied with them is 0."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count)
        self.gate = nn.Parameter(torch.zeros(()))

    def context(self, i: int, batch: int) -> Tensor:
        found = DeepPrompts.context(self, i, batch)
        assert isinstance(found, Tensor)
        return found + self.gate * self.basis


class Sampling(DeepPrompts):
    """With noise in every pass."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count=count)

    def context(self, i: int, batch: int) -> Tensor:
        found = super().context(i, batch)
        assert isinstance(found, Tensor)
        return found + torch.randn_like(found)


class Buffered(Drawn):
    """With the same in a buffer, and a number that is computed when it is built."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count)
        basis = self.basis
        del self.basis
        self.register_buffer("basis", basis)
        self.scale = float(basis.abs().max())


class Idle(DeepPrompts):
    """With a table that nothing reads."""

    def __init__(self, spec: Any, count: int):
        super().__init__(spec, count=count)
        self.forgotten = nn.Parameter(torch.zeros(3))


class Others(PromptSettings):
    method: Literal["others"] = "others"
    count: int = 2
    kind: str = "drawn"

    def build(self, spec: Any) -> DeepPrompts:
        return METHODS[self.kind](spec, self.count)


METHODS: dict[str, Any] = {
    "drawn": Drawn,
    "frozen": Frozen,
    "known": Known,
    "gated": Gated,
    "sampling": Sampling,
    "buffered": Buffered,
    "idle": Idle,
}


class Measuring(HeadSettings):
    kind: Literal["measuring"] = "measuring"
    tasks = ("classification",)

    def build(self, backbone: Any, answer: Answer) -> Head:
        width = next(p for p in backbone.parameters() if p.ndim == 2).shape[-1]
        assert width
        return ClassifyHead(backbone.spec, outputs=answer.classes)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    vpt.register_prompts(Others)
    vpt.register_heads(Measuring)
    yield
    PROMPTS.registered.clear()
    HEADS.registered.clear()


def settings_of(kind: str, base: dict[str, Any] = ONE_CLASS_STEP) -> dict[str, Any]:
    return base | {"prompts": {"method": "others", "kind": kind}, "task": "classification"}


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("drawn", r"Drawn: built again from what an artifact holds of it, the model answers otherwise \(by "),
        ("frozen", r"Frozen: built again from what an artifact holds of it, the model answers otherwise \(by "),
        ("gated", r"Gated: built again from what an artifact holds of it, the model answers otherwise \(by "),
    ],
)
def test_what_an_artifact_would_lose_is_refused_before_the_first_step(
    tiny_classes: Path, tmp_path: Path, kind: str, sentence: str
) -> None:
    with pytest.raises(VptError, match=sentence):
        train(tiny_classes, tmp_path / "run", overrides=settings_of(kind))
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.slow
def test_buffers_and_heads_that_look_at_the_encoder_are_trained_and_loaded(tiny_classes: Path, tmp_path: Path) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=settings_of("buffered") | {"head": {"kind": "measuring"}})
    image = torch.arange(28 * 32, dtype=torch.uint8).reshape(28, 32).numpy()
    first, second = (vpt.load(run, device="cpu").classify(image) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["known", "sampling", "buffered"])
def test_what_is_the_same_when_it_is_built_again_is_taken_and_stays_as_it_was(kind: str) -> None:
    config = load_config({"data": {"path": "x"}, "task": "segmentation"}, settings_of(kind) | {"task": "segmentation"})
    plan = plan_with(image_size=64)
    torch.manual_seed(1)
    model = build_model(config, plan, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    require_restorable(model, config, plan, 2)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "told"), [("idle", True), ("buffered", False)])
def test_what_should_train_and_gets_no_gradient_is_told(
    tiny_classes: Path, tmp_path: Path, kind: str, told: bool
) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=settings_of(kind, CLASS_SETTINGS))
    sentence = "1 tensor that should train had no gradient in the whole epoch (prompts.forgotten), so they stay"
    assert ((run / "train.log").read_text().count(sentence)) == int(told)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "bias", "ssf"])
def test_a_last_norm_that_a_mask_head_leaves_out_is_not_told(tiny_data: Path, tmp_path: Path, tuning: str) -> None:
    from tiny_run import ONE_STEP

    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"tuning": {"method": tuning}})
    assert "no gradient" not in (run / "train.log").read_text()

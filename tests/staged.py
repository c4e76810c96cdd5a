"""What the tests of encoders with several stages share: prompts that matter, and what is asked of every one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from encoders import draw, shaken
from torch import Tensor, nn

import vpt
from vpt.artifact import read_artifact, save_artifact
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.restoring import restore_model

PLAN = Plan(plane="axial", pixel_mm=1.0, image_size=48, neighbours=True, channels=("CT",), intensity=(Percentiles(),))


class Staged(NamedTuple):
    """A small model: timm's own, its adapter, and the published form written out, for images of `size`.

    quick: options of one that `torch.compile` is soon done with.
    """

    make_timm: Callable[..., Any]
    wrap: Callable[[Any], Any]
    literal: Callable[..., Tensor]
    size: tuple[int, int]
    quick: dict[str, Any] = {}  # noqa: RUF012 of a NamedTuple, which no one changes


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


def deep(backbone: Any, **options: Any) -> DeepPrompts:
    """Prompts of the size of tokens, so that much is gathered from them."""
    return shaken(DeepPrompts(backbone.spec, count=3, **options), 1.0)


def rows_of(prompts: DeepPrompts) -> dict[int, Tensor]:
    return {i: row for i in prompts.rows if isinstance(row := prompts.context(i, 1), Tensor)}


def assert_an_artifact_gives_it_back(folder: str, path: Path, tuning: str = "prompts", method: str = "deep") -> None:
    """The model of a folder with two prompts, saved to `path` and restored, answers the same."""
    values: dict[str, Any] = {"data": {"path": str(path.parent)}, "backbone": {"name": folder}}
    values |= {"prompts": {"method": method, "count": 2}, "tuning": {"method": tuning}}
    config, images = load_config(values).resolved("segmentation"), draw(2, (48, 48))
    model = build_model(config, PLAN, 2)
    shaken(nn.ParameterList(model.trained().values()), 0.1)
    save_artifact(path, model.eval(), config=config, plan=PLAN, labels={0: "background", 1: "liver"}, scores={})
    with torch.no_grad():
        assert torch.equal(restore_model(read_artifact(path))(images), model(images))


def assert_compiles(backbone: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks through torch's compiler, but for its code generator, which takes a minute: values and gradients."""
    model = PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval()

    def both() -> list[Tensor]:
        out = model(images)
        return [out, *torch.autograd.grad(out.square().sum(), list(model.prompts.parameters()))]

    expected = both()
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model.compile_blocks()
    for found, wanted in zip(both(), expected, strict=True):
        assert close(found, wanted, 1e-4)


def assert_wrapped(make_timm: Callable[[], Any], images: Tensor) -> None:
    """`vpt.wrap` gives timm's own output without prompts, trains prompts and head alone, and comes back."""
    model = make_timm()
    with torch.no_grad():
        assert torch.equal(vpt.wrap(copy.deepcopy(model), "none").eval()(images), model(images))
    wrapped = vpt.wrap(model, "deep:3")
    wrapped(images).square().sum().backward()
    trained = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"prompts", "head"}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    other = vpt.wrap(make_timm(), "deep:3")
    other.load_state_dict(wrapped.state_dict())
    assert torch.equal(other.eval()(images), wrapped.eval()(images))

"""What is compared: every method is a config and a model, and a search around a rate."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from plans import plan_with

from vpt import sections
from vpt.building import build_model
from vpt.config import HEAD_RATES, Config, load_config
from vpt.engine.methods import Method, choose_methods, methods
from vpt.errors import VptError

METHODS = methods()


def config_of(method: Method, overrides: dict[str, Any] | None = None) -> Config:
    return load_config({"data": {"path": "data"}, **method.settings}, overrides).resolved(method.tasks[-1])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_a_config_and_a_model(name: str) -> None:
    if name == "lora":
        pytest.importorskip("peft")
    method = METHODS[name]
    if name == "sam_decoder":
        method = replace(method, settings={**method.settings, "backbone": {"name": "sam_micro"}})
    for candidate in method.rates() + method.decays(method.rates()[0]):
        config = config_of(method, candidate)
        part, key = method.rate.split(".")
        assert getattr(getattr(config, part), key) == candidate[method.rate]
        assert config.optim.weight_decay == candidate["optim.weight_decay"]
    counts = build_model(config, plan_with(image_size=64, neighbours=False), classes=3).count_parameters()
    searched = {"optim.lr": "head", "optim.prompt_lr": "prompts", "optim.backbone_lr": "backbone"}[method.rate]
    assert counts[searched] > 0  # the rate that is searched moves something
    assert {part for part in ("prompts", "backbone") if counts[part]} == {searched} - {"head"}


def test_names_in_tables_are_told_apart() -> None:
    assert len({method.shown for method in METHODS.values()}) == len(METHODS)


def test_the_search_is_three_rates_then_another_decay_at_the_best() -> None:
    deep = METHODS["deep"]
    rates = deep.rates()
    assert [each["optim.prompt_lr"] for each in rates] == pytest.approx([deep.start / 4, deep.start, deep.start * 4])
    assert {each["optim.weight_decay"] for each in rates} == {1e-2}
    assert deep.decays(rates[2]) == [{"optim.prompt_lr": rates[2]["optim.prompt_lr"], "optim.weight_decay": 1e-4}]
    assert rates == deep.rates()  # the best was not changed


def test_the_head_alone_starts_at_its_tasks_own_rate() -> None:
    assert METHODS["head"].rates()[1]["optim.lr"] == HEAD_RATES["segmentation"]
    assert METHODS["mask"].rates()[1]["optim.lr"] == HEAD_RATES["segmentation"]
    assert METHODS["sam_decoder"].rates()[1]["optim.lr"] == 5e-4  # pretrained
    for name in ("linear", "mlp"):
        assert METHODS[name].rates()[1]["optim.lr"] == HEAD_RATES["classification"]


def test_by_default_all_of_the_task_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    classify, segment = choose_methods(None, "classification"), choose_methods(None, "segmentation")
    assert {"linear", "mlp", "deep"} <= classify.keys()
    assert "head" not in classify
    assert {"head", "deep", "unet"} <= segment.keys()
    assert not {"mask", "sam_decoder"} & segment.keys()  # compared where they are named
    assert list(choose_methods(["sam_decoder", "mask"], "segmentation")) == ["sam_decoder", "mask"]
    assert not {"linear", "mlp"} & segment.keys()
    monkeypatch.setattr(sections, "find_spec", lambda name: None)
    assert choose_methods(None, "classification").keys() == classify.keys() - {"lora"}
    assert list(choose_methods(["lora"], "classification")) == ["lora"]  # asked for: its failure says what to install


def test_chosen_methods_keep_their_order_and_come_once() -> None:
    assert list(choose_methods(["full", "deep", "full"], "segmentation")) == ["full", "deep"]


@pytest.mark.parametrize(
    ("name", "task", "sentence"),
    [
        ("deap", "segmentation", "no method for segmentation is called 'deap'; did you mean deep"),
        ("zzz", "classification", "no method for classification is called 'zzz'; expected some of linear, mlp, "),
        ("linear", "segmentation", "linear is for classification, and the task here is segmentation"),
        ("", "segmentation", "no method for segmentation is called ''; expected some of head, "),
    ],
)
def test_unknown_methods_are_told(name: str, task: Any, sentence: str) -> None:
    with pytest.raises(VptError, match="--methods: " + sentence):
        choose_methods(["deep", name], task)


def test_naming_the_methods_loads_nothing_heavy() -> None:
    code = "import sys, vpt.engine.methods; print(*[n for n in ('torch', 'timm', 'monai') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

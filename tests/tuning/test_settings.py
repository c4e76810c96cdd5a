"""`tuning` in a config: a method's name or a section, in YAML, in overrides and on the command line."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from vpt.cli import app
from vpt.config import dump_config, load_config
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.sections import TUNINGS

DATA = {"data": {"path": "x"}}
METHODS = ("adapter", "bias", "full", "lora", "partial", "prompts", "ssf")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_section_with_the_functions_own_defaults(method: str) -> None:
    module, section = import_module(f"vpt.tuning.{method}"), TUNINGS.section(method)
    model, *parameters = inspect.signature(getattr(module, f"tune_{method}")).parameters.values()

    assert TUNINGS.names() == METHODS
    assert section().method == method
    assert section().model_dump(exclude={"method"}) == {p.name: p.default for p in parameters}
    assert model.annotation == PromptedModel.__name__


@pytest.mark.parametrize("method", METHODS)
def test_a_name_is_a_section_of_defaults(method: str) -> None:
    config = load_config(DATA | {"tuning": method})

    assert config.tuning == TUNINGS.section(method)()
    assert config == load_config(DATA | {"tuning": {"method": method}})
    assert load_config(yaml.safe_load(dump_config(config))) == config


def test_settings_are_kept() -> None:
    config = load_config(DATA | {"tuning": {"method": "lora", "rank": 4}})

    assert config.tuning.model_dump() == {"method": "lora", "rank": 4, "alpha": 8}
    assert load_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("values", "overrides"),
    [
        ({}, {"tuning": "lora", "tuning.rank": 4}),
        ({"tuning": "lora"}, {"tuning.rank": 4}),
        ({"tuning": {"method": "lora", "rank": 2}}, {"tuning.rank": 4}),
        ({"tuning": {"method": "adapter", "width": 2}}, {"tuning": {"method": "lora", "rank": 4}}),
    ],
)
def test_overrides_reach_into_a_name_and_a_section(values: dict[str, Any], overrides: dict[str, Any]) -> None:
    assert load_config(DATA | values, overrides).tuning.model_dump() == {"method": "lora", "rank": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ("lorra", "config: tuning: no method is called 'lorra'; did you mean lora"),
        (3, "config: tuning: "),
        ({"method": "lora", "rank": 0}, "config: tuning.rank: Input should be greater than or equal to 1, found 0"),
        ({"method": "lora", "rnk": 4}, "config: unknown key tuning.rnk; did you mean tuning.rank?"),
        ({"method": "partial", "blocks": "two"}, "config: tuning.blocks: "),
        ({"method": "adapter", "scale": 0}, "config: tuning.scale: "),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(tuning: Any, said: str) -> None:
    with pytest.raises(VptError) as error:
        load_config(DATA | {"tuning": tuning})
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_the_command_line_takes_a_name_and_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def train(config: Any, out: Path, *, overrides: Any, **options: Any) -> Path:
        found.append(load_config(config, overrides).tuning.model_dump())
        return out

    monkeypatch.setattr("vpt.engine.run.train", train)
    for arguments in (["--tuning", "full"], ["--tuning", "lora", "--set", "tuning.rank=4"]):
        result = CliRunner().invoke(app, ["train", str(tmp_path), "--out", str(tmp_path / "run"), *arguments])
        assert result.exit_code == 0, result.output
    assert found == [{"method": "full"}, {"method": "lora", "rank": 4, "alpha": 8}]

"""`vpt config` and docs/settings.md say of every setting what it is, from the config's own types."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.config.files import load_config
from vpt.errors import VptError
from vpt.use.settings import explain, settings, settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_says_what_it_means() -> None:
    found = settings()

    assert len(found) > 100
    assert not [setting.key for setting in found if not setting.meaning.endswith(".") or not setting.values]


def test_the_page_in_docs_is_that_of_this_version() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "vpt config --markdown > docs/settings.md"


def test_a_default_that_is_told_is_the_one_that_a_config_has(tmp_path: Path) -> None:
    config = load_config(tmp_path).model_dump()
    told = {setting.key: setting.default for setting in settings() if not setting.of}

    assert told["optim.prompt_lr"] == f"{config['optim']['prompt_lr']:g}"
    assert told["train.epochs"] == str(config["train"]["epochs"])
    assert told["data.path"] == "has to be given"


@pytest.mark.parametrize(
    ("key", "values", "default"),
    [
        ("optim.lr", "number above 0, or null", "null"),
        ("train.foreground", "number from 0, up to 1", "0.6"),
        ("plan.window", "2 numbers, or null", "null"),
        ("plan.plane", "axial, coronal, sagittal, or null", "null"),
    ],
)
def test_the_values_that_a_setting_takes_are_told_in_words(key: str, values: str, default: str) -> None:
    (setting,) = explain(key)

    assert (setting.values, setting.default) == (values, default)


def test_a_setting_of_several_choices_is_told_of_each() -> None:
    counts = {setting.of: setting.default for setting in explain("prompts.count")}

    assert counts["prompts.method=deep"] == "10"
    assert counts["prompts.method=shallow"] == "50"


def test_a_section_is_told_whole() -> None:
    assert {"train.epochs", "train.mirror"} <= {setting.key for setting in explain("train")}


@pytest.mark.parametrize(("key", "hint"), [("lr", "optim.lr"), ("optim.lrr", "optim.lr"), ("train.epoch", "epochs")])
def test_what_is_no_setting_is_refused_with_what_it_may_have_been(key: str, hint: str) -> None:
    with pytest.raises(VptError, match=hint):
        explain(key)

"""Every setting of a config in words, made from the config's own types: `vpt config`, docs/settings.md."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vpt.backbones.families import FAMILIES
from vpt.config.files import CHOSEN
from vpt.config.run import Config
from vpt.errors import VptError
from vpt.report.pages import render
from vpt.words import did_you_mean

NAMES: dict[Any, str] = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "up to {}", "lt": "below {}", "multiple_of": "multiple of {}"}


@dataclass(frozen=True)
class Setting:
    """key: dotted; of: the choice that has it (`prompts.method=deep`), "" where every config has it; else in words."""

    key: str
    of: str
    values: str
    default: str
    meaning: str


def settings() -> list[Setting]:
    """All of them, in the order of a config; those of prompt methods, heads and controls choice by choice."""
    found: list[Setting] = []
    for name, field in Config.model_fields.items():
        if name in CHOSEN:
            found += _of_choices(name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _fields(field.annotation, f"{name}.")
            if name == "backbone":
                found += _of_families()
        else:
            found.append(_setting(name, "", field))
    return found


def explain(key: str) -> list[Setting]:
    """The settings that are called `key`: one, or one for each choice that has it, or all of a section.

    Raises:
        VptError: there is none; the sentence says which it may have been.
    """
    known = settings()
    found = [setting for setting in known if setting.key == key or setting.key.startswith(f"{key}.")]
    if not found:
        keys = list(dict.fromkeys(setting.key for setting in known))
        alike = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
        hint = f"; did you mean {alike[0]}?" if alike else did_you_mean(key, keys) or "; `vpt config` lists all"
        raise VptError(f"{key}: no setting is called so{hint}")
    return found


def settings_page() -> str:
    """docs/settings.md: a table for each section, and of what is chosen by name for each choice."""
    groups = [(name, list(group)) for name, group in groupby(settings(), _heading)]
    alone = [setting for name, group in groups if not name for setting in group]
    return render("settings.md", alone=alone, groups=[group for group in groups if group[0]])


def _heading(setting: Setting) -> str:
    section, dot, _ = setting.key.partition(".")
    return setting.of or (section if dot else "")


def _of_families() -> Iterator[Setting]:
    """The options of encoders; families that share a section are told together."""
    for section in dict.fromkeys(family.options for family in FAMILIES):
        names = ", ".join(family.name for family in FAMILIES if family.options is section)
        yield from _fields(section, "backbone.options.", f"encoders: {names}")


def _of_choices(name: str) -> Iterator[Setting]:
    for section in CHOSEN[name]:
        yield from _fields(section, f"{name}.", f"{name}.{CHOSEN[name].key}={section.name_by(CHOSEN[name].key)}")


def _fields(section: type[BaseModel], prefix: str, of: str = "") -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        yield _setting(prefix + name, of, field)


def _setting(key: str, of: str, field: FieldInfo) -> Setting:
    values = _values(field.annotation)
    limits = ", ".join(_limits(field.metadata))
    if limits:
        number, null, _ = values.partition(", or null")
        values = f"{number} {limits}{null}"
    return Setting(key, of, values, _default(field), " ".join((field.description or "").split()))


def _values(annotation: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inside))
    if origin in (Union, types.UnionType):
        words = [_values(part) for part in inside if part is not type(None)]
        return ", or ".join([*dict.fromkeys(words), *(["null"] if type(None) in inside else [])])
    if origin is Annotated:
        return _values(inside[0])
    if origin is tuple:
        return f"{'list of' if inside[-1] is ... else len(inside)} {_many(_values(inside[0]))}"
    return NAMES.get(annotation, "`key: value` pairs")


def _many(values: str) -> str:
    return f"{values}s" if values.endswith("number") else values


def _limits(metadata: list[Any]) -> Iterator[str]:
    for limit in metadata:
        for name, words in BOUNDS.items():
            if getattr(limit, name, None) is not None:
                yield words.format(f"{getattr(limit, name):g}")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "has to be given"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return str(list(value))
    return "none" if value == {} else f"{value:g}" if isinstance(value, float) else str(value)

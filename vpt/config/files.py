"""Configs from YAML and the command line, and back; unknown keys are rejected with a suggestion."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vpt.config.before import as_written
from vpt.config.run import DEFAULT_HEADS, Config, DataConfig
from vpt.config.yaml_text import LONGEST, Unusable, parse_yaml
from vpt.errors import VptError
from vpt.files import absolute, is_address
from vpt.sections import FAIR, HEADS, PROMPTS, TUNINGS, Room
from vpt.vocabulary import ARRAYS, LISTS
from vpt.words import did_you_mean, listed, with_article

CHOSEN: dict[str, Room[Any]] = {"prompts": PROMPTS, "head": HEADS, "tuning": TUNINGS, "fair": FAIR}
SHORT = {section: room.key for section, room in CHOSEN.items()} | {"backbone": "name", "start": "path"}
"""Sections that may be given as one word, and what that is."""
OTHERWISE = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "optimizer": "method",
    "bs": "batch_size",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "num_tokens": "count",
    "amp": "precision",
}
"""What other programs call some settings, and what these are called here."""


def load_config(source: str | Path | dict[str, Any], overrides: dict[str, Any] | None = None) -> Config:
    """A YAML file, a data set (all defaults), or a dictionary -> Config; `overrides` have dotted keys.

    Raises:
        VptError: no such file, not YAML, unknown keys (with a suggestion), values out of range: all told together.
    """
    if not isinstance(source, str | Path | dict):
        found = type(source).__name__
        raise VptError(f"config: {with_article(found)}, expected a data set's folder, a YAML file or a dictionary")
    if isinstance(source, dict):
        name, values = "config", _copy(source)
    elif Path(source).is_dir() or Path(source).suffix.lower() in LISTS + ARRAYS:
        name, values = "config", {"data": {"path": str(source)}}
    else:
        name, values = str(source), _read_yaml(Path(source))
    _override(values, overrides)
    return build_config(values, name)


def as_config(given: str | Path | dict[str, Any] | Config, overrides: dict[str, Any] | None = None) -> Config:
    """What `load_config` reads, or a `Config`; with the overrides. Raises VptError as it does."""
    if not isinstance(given, Config):
        return load_config(given, overrides)
    return load_config(given.model_dump(mode="json", exclude_unset=True), overrides) if overrides else given


def load_written(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The config.yaml of a run, which may be older than this version (`vpt.config.before`)."""
    values = as_written(_read_yaml(path))
    _override(values, overrides)
    return build_config(values, str(path))


def build_config(values: dict[str, Any], name: str) -> Config:
    values = {key: value for key, value in values.items() if value is not None}  # `optim:` with nothing below it
    kind = DEFAULT_HEADS["classification" if values.get("task") == "classification" else "segmentation"]
    defaults = {"prompts": {"method": "deep"}, "head": {"kind": kind}, "tuning": {"method": "prompts"}}
    problems: list[str] = []
    if isinstance(values.get("backbone"), str):
        values["backbone"] = {"name": values["backbone"]}
    for section, room in CHOSEN.items():
        if isinstance(values.get(section), str):
            values[section] = {room.key: values[section]}
        if isinstance(values.get(section), dict):
            values[section] = _chosen(section, room, defaults.get(section, {}) | values[section], name, problems)
        if section == "prompts" and (partner := getattr(values.get(section), "partner", None)):
            defaults["head"] = {"kind": partner}
    try:
        config = Config.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        problems += [_explain(name, problem) for problem in error.errors()]
    if problems:
        raise VptError("; ".join(problems))
    return config


def _chosen(section: str, room: Room[Any], values: dict[str, Any], name: str, problems: list[str]) -> Any:
    """The section that `values` name, or None with what is wrong with it among the problems."""
    try:
        return room.validate(values)
    except VptError as error:
        problems.append(f"{name}: {error}")
    except ValidationError as error:
        for problem in error.errors():
            of_another = problem["type"] == "extra_forbidden" and _of_another(section, room, values, problem["loc"])
            problems.append(f"{name}: {of_another}" if of_another else _explain(name, problem, (section,)))
    return None


def _of_another(section: str, room: Room[Any], values: dict[str, Any], place: tuple[Any, ...]) -> str:
    """That a key is a setting of other choices of this section, in one sentence; "" where it is of none."""
    key = ".".join(map(str, place))
    owners = [each.name_by(room.key) for each in room if key in each.model_fields]
    if not owners:
        return ""
    chosen = f"{section}.{room.key}"
    return (
        f"{section}.{key} is a setting of {listed((f'{chosen}={owner}' for owner in owners), 3)}, found "
        f"{chosen}={values.get(room.key)}; choose one that has it, or leave the key out"
    )


def parse_override(text: str) -> tuple[str, Any]:
    """`train.epochs=5` -> ("train.epochs", 5); the value is YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise VptError(f"--set {text}: expected KEY=VALUE, for example optim.lr=1e-3")
    try:
        return key, parse_yaml(value)
    except Unusable as error:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        raise VptError(f"--set {shown}: the value is {error.reason}; {error.mend or 'put it in quotes'}") from error


def parse_labels(text: str) -> dict[str, int | str | tuple[int | str, ...]]:
    """`{liver: [1, 2], background: others}` -> `data.labels`."""
    try:
        given = DataConfig.model_validate({"path": ".", "labels": parse_yaml(text)}).labels
    except Unusable as error:
        if error.mend:
            raise VptError(f"--labels {text}: {error.reason}; {error.mend}") from error
        given = None
    except ValidationError:
        given = None
    if not given:
        raise VptError(
            f"--labels {text}: expected names with their values, for example '{{liver: [1, 2], background: others}}'"
        )
    return dict(given)


def parse_prompts(text: str) -> dict[str, Any]:
    """`deep:10`, `shallow:50`, `low_rank:50`, `deep`, `additive`, `none`, ... -> the `prompts` section."""
    method, _, count = text.partition(":")
    if method not in PROMPTS.names() or (count and not (count.isdecimal() and _has_count(method))):
        meant = "" if method in PROMPTS.names() else did_you_mean(method, PROMPTS.names())
        counted = [each.name_by("method") for each in PROMPTS if "count" in each.model_fields]
        *others, last = [name for name in PROMPTS.names() if name not in counted]
        forms = ", ".join(f"{name}:COUNT" for name in counted)
        raise VptError(f"--prompts {text}: expected {forms}, {', '.join(others)} or {last}, for example deep:10{meant}")
    return {"method": method, "count": int(count)} if count else {"method": method}


def _has_count(method: str) -> bool:
    return "count" in PROMPTS.section(method).model_fields


def dump_config(config: Config) -> str:
    """YAML that `load_config` reads back to the same Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise VptError(f"{path}: no such file or folder; give a data set's folder or a YAML config")
    try:
        with open(path, encoding="utf-8") as file:
            values = parse_yaml(file.read(LONGEST + 1))
    except Unusable as error:
        raise VptError(f"{path}: {error.reason}{error.where}; {error.mend or 'see configs/ for examples'}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise VptError(f"{path}: not readable as YAML ({error}); see configs/ for examples") from error
    if not isinstance(values, dict):
        raise VptError(f"{path}: holds no `key: value` pairs; see configs/ for examples")
    if isinstance(values.get("start"), str):
        values["start"] = {"path": values["start"]}
    for section, key in (("data", "path"), ("backbone", "weights"), ("start", "path"), ("fair", "groups")):
        inner = values.get(section)
        given = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(given, str) and given != "random" and not is_address(given):
            inner[key] = _beside(path, given)
    return values


def _beside(path: Path, given: str) -> str:
    """A path as a config has it, seen from the config's folder."""
    try:
        return str(absolute(path.parent / Path(given).expanduser()))
    except (RuntimeError, ValueError) as error:
        raise VptError(f"{path}: {given!r} is no place of a file ({error}); correct it") from error


def _override(values: dict[str, Any], overrides: Any) -> None:
    if overrides is not None and not isinstance(overrides, dict):
        found = with_article(type(overrides).__name__)
        raise VptError(f"overrides: {found}, expected a dictionary such as {{'optim.lr': 1e-3}}")
    for key, value in _copy(overrides or {}).items():
        _set(values, key, value)


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    if not isinstance(key, str):
        raise VptError(f"overrides: the key {key!r}, expected one with dots, such as optim.lr")
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(values.get(parent), str) and parent in SHORT:
            values[parent] = {SHORT[parent]: values[parent]}
        if values.get(parent) is None:  # `optim:` with nothing below it
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise VptError(f"{key}: {parent} is a value, not a section; see `vpt train --help`")
    if isinstance(value, dict) and isinstance(values.get(last), dict) and not parents and last not in CHOSEN:
        value = {**values[last], **value}  # a section's other settings stay
    values[last] = value


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}


def _explain(name: str, problem: Any, within: tuple[str, ...] = ()) -> str:
    parts = [*within, *(str(part) for part in problem["loc"])]
    where = ".".join(parts)
    if problem["type"] == "model_type":
        own = ", ".join(_siblings(_all_keys(), parts))
        return f"{name}: {where}: a section with keys of its own ({own}), found {problem['input']!r}"
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], str):
        return f"{name}: {where} is missing; set it"
    if problem["type"] != "extra_forbidden":
        return f"{name}: {where}: {problem['msg']}, found {problem['input']!r}"
    known = [key for key in _all_keys() if key != where]  # a key of another prompt method is known elsewhere
    meant = _meant(where, known)
    hint = f"did you mean {meant}?" if meant else f"known keys here: {', '.join(_siblings(known, parts[:-1]))}"
    return f"{name}: unknown key {where}; {hint}"


def _meant(where: str, known: list[str]) -> str:
    """The key that an unknown one may stand for, by its own word: of its section, else of any; "" where none is."""
    section, _, word = where.rpartition(".")
    word = OTHERWISE.get(word, word)
    words = {key: key.rpartition(".")[2] for key in known}
    inside = [key for key in known if key.rpartition(".")[0] == section]
    others = [key for key in known if "." in key or not section]
    for keys, alike in ((inside, 1.0), (known, 1.0), (inside, 0.6), (others, 0.76)):
        if close := difflib.get_close_matches(word, sorted({words[key] for key in keys}), n=1, cutoff=alike):
            return next(key for key in keys if words[key] == close[0])
    return ""


def _all_keys() -> list[str]:
    keys: list[str] = []
    for key in _keys(Config):
        keys.append(key)
        if key in CHOSEN:
            keys += [found for section in CHOSEN[key] for found in _keys(section, f"{key}.")]
    return list(dict.fromkeys(keys))


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for section in _sections(field.annotation):
            keys += _keys(section, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections(part)]


def unknown_keys(values: dict[str, Any]) -> list[str]:
    """The dotted keys of a whole config's values that this version does not know; not of a method that it lacks."""
    known, found = {*_keys(Config), "backbone.attention"}, []
    for key, value in values.items():
        if key not in known:
            found.append(key)
        elif isinstance(value, dict) and key not in CHOSEN:
            found += [f"{key}.{inner}" for inner in value if f"{key}.{inner}" not in known]
        elif isinstance(value, dict) and (name := value.get(CHOSEN[key].key)) in CHOSEN[key].names():
            own = _keys(CHOSEN[key].section(name), f"{key}.")
            found += [f"{key}.{inner}" for inner in value if f"{key}.{inner}" not in own]
    return found


def _siblings(known: list[str], parents: list[str]) -> list[str]:
    depth = len(parents) + 1
    return [key for key in known if key.split(".")[:-1] == parents and key.count(".") == depth - 1]

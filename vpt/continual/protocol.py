"""What a sequence of tasks is made of, and who learns it: the settings of `vpt continual`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, ValidationError, field_validator

from vpt.config import load_config
from vpt.config.yaml_text import LONGEST, Unusable, parse_yaml
from vpt.data.layouts import is_labelled
from vpt.errors import VptError
from vpt.files import absolute, require_file
from vpt.sections import LARGEST_WIDTH, Section
from vpt.words import did_you_mean, listed

WHERE = (0, 1, 2, 3, 4)  # the blocks of CODA-Prompt, which the plain prompts have as well
PLAIN: dict[str, Any] = {"method": "deep", "count": 10, "blocks": WHERE}
TUNED: dict[str, dict[str, Any]] = {  # trained, task after task, with `vpt train --continue`
    "coda": {"method": "coda"},
    "l2p": {"method": "l2p"},
    "dualprompt": {"method": "dualprompt"},
    "smope": {"method": "smope"},
    "sequential": PLAIN,
    "head": {"method": "none"},
}
JOINT = "joint"  # the prompts of `sequential`, trained on all tasks at once
ADAPTED = "ranpac_prompts"  # the prompts of `sequential`, trained on the first task alone; then no gradient
FROZEN = ("ncm", "ranpac")  # on features of the encoder as it is
ON_FEATURES = (*FROZEN, ADAPTED)
OF_CLASSES = (*ON_FEATURES, *TUNED, JOINT)
OWN = "own"  # of masks: every task has prompts and a head of its own
OF_MASKS: dict[str, dict[str, Any]] = {
    OWN: {"method": "deep", "count": 10},
    "sequential": {"method": "deep", "count": 10},
    "head": {"method": "none"},
    JOINT: {"method": "deep", "count": 10},
}
METHODS = tuple(dict.fromkeys((*OF_CLASSES, *OF_MASKS)))
SHOWN = {
    "ncm": "nearest class mean",
    "ranpac": "RanPAC on the frozen encoder",
    ADAPTED: "RanPAC on prompts of the first task",
    "coda": "CODA-Prompt",
    "l2p": "L2P",
    "dualprompt": "DualPrompt",
    "smope": "SMoPE",
    "sequential": "one set of prompts, trained on and on",
    "head": "rows of the head alone",
    "joint": "all tasks at once",
    "own": "prompts and head of its own",
}

EXPECTED = {  # of the fields of a protocol, for messages
    "data": "the path of a data set, or a list of such paths",
    "tasks": "a number of tasks, or a list of lists of classes",
    "shuffle": "true or false",
    "methods": "a list of names",
    "seeds": "a list of whole numbers from 0 on",
    "projection": "a whole number from 1 on",
    "prompts": "the settings of methods, {coda: {components: 10}}",
    "settings": "settings of `vpt train` by dotted keys, {train.epochs: 20}",
}
SAID_ELSEWHERE = {  # settings that differ from run to run -> where a protocol says them
    "seed": "seeds",
    "data.path": "data",
    "data.only": "tasks",
    "start": "the order of the tasks",
    "prompts": "prompts, by method ({own: {count: 5}})",
}


class Protocol(Section):
    """A sequence of tasks, and the methods that learn it."""

    data: tuple[Path, ...] = Field(min_length=1)
    """A data set, whose classes are split; or several, of which each is a task."""
    tasks: int | tuple[tuple[str, ...], ...] | None = None
    """Of one data set: how many tasks of as many classes each, or the classes of each task; null: 5."""
    shuffle: bool = True
    """Classes are dealt to the tasks, and several data sets come, in an order that the seed draws; else as read."""
    methods: tuple[str, ...] | None = Field(None, min_length=1)
    """Who learns it; null: all, of several data sets all but `joint`. Of masks: `own`, `sequential`, `head`,
    `joint`."""
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    """Of the order and of all that training draws; every method learns every one of these sequences."""
    projection: int = Field(2000, ge=1, le=LARGEST_WIDTH)
    """Width of RanPAC's random projection; published with 10,000, whose products take 0.8 GB."""
    prompts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of a method's prompts, {coda: {components: 10}}."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of `vpt train` by dotted keys, {backbone.name: ..., train.epochs: 20}."""

    @field_validator("data", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | Path) else given

    @field_validator("methods")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        if unknown := [name for name in names if name not in METHODS]:
            hint = did_you_mean(unknown[0], METHODS) or f"; expected some of {listed(METHODS, 20)}"
            raise ValueError(f"no method is called {unknown[0]!r}{hint}")
        return tuple(dict.fromkeys(names))

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seeds))

    @field_validator("prompts")
    @classmethod
    def _of_methods(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        able = [name for name in METHODS if name not in FROZEN]
        if unknown := [name for name in given if name not in able]:
            hint = did_you_mean(unknown[0], able) or f"; expected some of {listed(able, 20)}"
            raise ValueError(f"no method with prompts is called {unknown[0]!r}{hint}")
        return given

    @field_validator("settings")
    @classmethod
    def _alike(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in given:
            for own, where in SAID_ELSEWHERE.items():
                if key == own or key.startswith(f"{own}."):
                    raise ValueError(f"{key} is not the same in all runs; a protocol says it by {where}")
        return given

    @property
    def of_masks(self) -> bool:
        """Whether the tasks are to segment: as `vpt train` is told, or where a data set has no classes."""
        task = self.settings.get("task")
        return task == "segmentation" if task else not all(is_labelled(path) for path in self.data)

    @property
    def learners(self) -> tuple[str, ...]:
        """The methods, by name.

        Raises:
            VptError: one that does not learn what the tasks are.
        """
        able = tuple(OF_MASKS) if self.of_masks else OF_CLASSES
        if self.methods is None:
            return able if len(self.data) == 1 else tuple(name for name in able if name != JOINT)
        if unable := [name for name in self.methods if name not in able]:
            what = "segment" if self.of_masks else "classify"
            raise VptError(f"{unable[0]}: not for tasks that {what}; expected some of {listed(able, 20)}")
        return self.methods

    def require_usable(self) -> None:
        """Before the first training: see that the data are there and of one kind, and that all methods have a config.

        Raises:
            VptError: what is missing, unknown or out of range.
        """
        if gone := [path for path in self.data if not path.exists()]:
            raise VptError(f"{gone[0]}: no such file or folder; give a data set, or a protocol as YAML")
        masks = [path for path in self.data if not is_labelled(path)]
        classes = [path for path in self.data if path not in masks]
        if masks and classes and "task" not in self.settings:
            raise VptError(f"{classes[0]} has classes, {masks[0]} has none; give data sets of one kind")
        for method in self.learners:
            try:
                load_config({"data": {"path": str(self.data[0])}, "prompts": self.prompts_of(method)}, self.settings)
            except VptError as error:
                raise VptError(f"{method}: {error}") from error

    def prompts_of(self, method: str) -> dict[str, Any]:
        """The section of a method, of which those on the frozen encoder have no prompts."""
        if method in FROZEN:
            return {"method": "none"}
        masks = method in OF_MASKS and self.of_masks
        own = OF_MASKS[method] if masks else TUNED["sequential" if method in (JOINT, ADAPTED) else method]
        return {**own, **self.prompts.get(method, {})}


def load_protocol(source: list[Path], overrides: dict[str, Any]) -> Protocol:
    """Of data sets, or of one YAML file; overrides: fields of the protocol.

    Raises:
        VptError: unknown keys, values out of range, no such file, all that is wrong with them together.
    """
    name, values = "vpt continual", dict[str, Any](data=[str(path) for path in source])
    if files := [path for path in source if path.suffix.lower() in (".yaml", ".yml")]:
        if len(source) > 1:
            raise VptError(f"{files[0]}: a protocol names its data itself; give it alone, or data sets alone")
        name, values = str(files[0]), _read(files[0])
    own, more = values.get("settings") or {}, overrides.get("settings", {})
    values = {**values, **overrides, "settings": {**own, **more} if isinstance(own, dict) else own}
    try:
        return Protocol.model_validate(values)
    except ValidationError as error:
        said = {_in_words(problem, values) for problem in error.errors()}
        raise VptError(f"{name}: {'; '.join(sorted(said))}") from error


def _in_words(problem: Any, values: dict[str, Any]) -> str:
    """What is wrong with one key of a protocol."""
    key = str(problem["loc"][0])
    if key not in EXPECTED:
        return f"unknown key {key}{did_you_mean(key, EXPECTED) or f'; its keys are {listed(EXPECTED, 20)}'}"
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}"
    return f"{key}: found {values[key]!r}, expected {EXPECTED[key]}"


def _read(path: Path) -> dict[str, Any]:
    """Paths are relative to the file."""
    try:
        require_file(path, LONGEST, "YAML")
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except Unusable as error:
        mend = error.mend or "give a data set, or a protocol as YAML"
        raise VptError(f"{path}: {error.reason}{error.where}; {mend}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", error)
        raise VptError(f"{path}: {reason}; give a data set, or a protocol as YAML") from error
    if not isinstance(values, dict) or not values.get("data"):
        raise VptError(f"{path}: names no data; a protocol has the keys {listed(EXPECTED, 20)}")
    given = values["data"]
    paths = given if isinstance(given, list) else [given]
    if not all(isinstance(each, str) for each in paths):
        raise VptError(f"{path}: data: found {given!r}, expected {EXPECTED['data']}")
    return {**values, "data": [str(absolute(path.parent / each)) for each in paths]}

"""Sections of the config that live beside what they set up, and how they are found by name.

A prompt method, a head or a control is one file: its section, with the settings, their ranges and defaults, and the
module that the section builds. Every file in the room's folder but `base.py` holds one, called as the file; other
packages bring theirs by an entry point of the room's group, or by `register`.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from vpt.errors import VptError
from vpt.vocabulary import TASKS, Task
from vpt.words import did_you_mean

LARGEST_WIDTH = 2**14  # of a learned layer, wider than any encoder; more is a slip, and would take all memory


def require_whole(section: str, least: int = 1, instead: str = "", **numbers: int) -> None:
    """Raise VptError unless what Python was given are whole numbers from `least` on; instead: what else to do."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise VptError(f"{section}: {name} is {value!r}; expected a whole number")
        if value < least:
            raise VptError(f"{section}: {name} is {value}; at least {least} is needed{instead}")


class Section(BaseModel):
    """A group of settings; the words below each field are its meaning (docs/settings.md, `vpt config --explain`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_answer(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse true and false, which count as the numbers 1 and 0 otherwise, where a setting is neither."""
        if isinstance(given, bool) and not _takes_bool(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are no value of it (YAML reads yes, no, on and off as these)")
        return given


def _takes_bool(annotation: Any) -> bool:
    """Whether a type, one of a union's, or a literal's value is true or false."""
    return annotation in (bool, Any) or isinstance(annotation, bool) or any(map(_takes_bool, get_args(annotation)))


@dataclass(frozen=True)
class Compared:
    """A row of `vpt compare`: its name, the one in tables, the settings of its section, where its rate is searched.

    aside: compared only where it is named, since not every encoder has it, or another row is the same by default.
    """

    name: str
    shown: str
    settings: Mapping[str, Any]
    start: float
    aside: bool = False


class Choice(Section):
    """A section that is chosen by name.

    compared: the rows of `vpt compare`; tasks: what it is for; needs: a package that has to be installed; encoded:
    whether it needs an encoder, False of what reads the images alone; partner: of prompts that one head alone reads,
    that head, and of that head these prompts; offered: False of what nobody chooses, because a command makes it;
    own_rate: of heads and tunings, the learning rate of what they train where the config leaves it null, None for the
    usual one.
    """

    compared: ClassVar[tuple[Compared, ...]] = ()
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[str | None] = None
    encoded: ClassVar[bool] = True
    partner: ClassVar[str | None] = None
    offered: ClassVar[bool] = True
    own_rate: ClassVar[float | None] = None

    @classmethod
    def name_by(cls, key: str) -> str:
        """The value that `key` (`method`, `kind`) has in every section of this class."""
        return str(cls.model_fields[key].default)

    @classmethod
    def installed(cls) -> bool:
        return cls.needs is None or find_spec(cls.needs) is not None


C = TypeVar("C", bound=Choice)


class Room(Generic[C]):
    """The choices in a folder of the package, those of other packages, and those that were registered.

    Args:
        package: dotted name of the folder, `vpt.prompts`, which is the group of the entry points too;
        key: the field that names a choice; what: a choice in words.
    """

    def __init__(self, package: str, key: str, what: str):
        self.package = package
        self.key = key
        self.what = what
        self.registered: dict[str, type[C]] = {}

    def names(self) -> tuple[str, ...]:
        """All of them, sorted. Nothing is imported."""
        return tuple(sorted({*self._own(), *self._foreign(), *self.registered}))

    def __iter__(self) -> Iterator[type[C]]:
        """All but those of other packages that cannot be loaded, which are refused where one of them is chosen."""
        for name in self.names():
            with suppress(VptError):
                yield self.section(name)

    def section(self, name: str) -> type[C]:
        """The section called so.

        Raises:
            VptError: an unknown name; an entry point that cannot be loaded, or is no section.
        """
        if name in self.registered:
            return self.registered[name]
        if name in self._own():
            module = import_module(f"{self.package}.{name}")
            for found in vars(module).values():
                if self._is_called(found, name):
                    return found
            raise VptError(
                f"{self.what} {name}: {module.__file__} holds no section of that name; see docs/extending.md"
            )
        if name in self._foreign():
            return self._loaded(self._foreign()[name])
        hint = did_you_mean(name, self.names()) or f"; expected one of {', '.join(self.names())}"
        raise VptError(f"{self.what}: no {self.key} is called {name!r}{hint}")

    def register(self, section: type[C]) -> type[C]:
        """Make a section of someone else's known for as long as the process runs; returned, to serve as a decorator.

        Raises:
            VptError: it names no choice, or one that there is already.
        """
        if why := self._why_none(section):
            raise VptError(f"{self.what}: {why}; see docs/extending.md")
        name = section.name_by(self.key)
        if name in self.names() and self.registered.get(name) is not section:
            raise VptError(f"{self.what}: {name!r} is there already; give yours another name")
        self.registered[name] = section
        return section

    def validate(self, values: Any) -> C:
        """A section, or its values with the name among them -> the section.

        Raises:
            VptError: no such name; pydantic.ValidationError: wrong values.
        """
        name = values.get(self.key) if isinstance(values, Mapping) else getattr(values, self.key, None)
        if not isinstance(name, str):
            raise VptError(f"{self.what}: {values!r} names no {self.key}; expected one of {', '.join(self.names())}")
        section = self.section(name)
        if isinstance(values, Mapping):
            return section.model_validate(dict(values))
        if not isinstance(values, section):
            raise VptError(f"{self.what}: {values!r} is not the section that is called {name!r}; give its settings")
        return values

    def _own(self) -> frozenset[str]:
        folder = Path(__file__).parent.joinpath(*self.package.split(".")[1:])
        return frozenset(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.ispkg and m.name != "base")

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points_of(self.package)}

    def _why_none(self, found: Any) -> str | None:
        """What makes something of another package no section of this room."""
        if isinstance(found, Choice):
            return f"{found!r} is an instance of {type(found).__name__}; give the class itself"
        if not (isinstance(found, type) and issubclass(found, Choice) and self.key in found.model_fields):
            return f"{found!r} is no section with a field `{self.key}`"
        if not any(base.__module__ == f"{self.package}.base" for base in found.__mro__):
            return f"{found!r} is no section of this kind, which derive from that of {self.package}.base"
        if not isinstance(found.model_fields[self.key].default, str):
            return f"{found!r} has no name; give its field a default, `{self.key}: Literal['mine'] = 'mine'`"
        return None

    def _is_called(self, found: Any, name: str) -> bool:
        if not (isinstance(found, type) and issubclass(found, Choice) and self.key in found.model_fields):
            return False
        return found.name_by(self.key) == name

    def _loaded(self, point: EntryPoint) -> type[C]:
        found = load_foreign(point, self.what)
        if not self._is_called(found, point.name):
            why = self._why_none(found) or f"is called {found.name_by(self.key)!r}"
            raise VptError(
                f"{self.what} {point.name}: {point.value} is no section of that name ({why}); see docs/extending.md"
            )
        return found


def is_own(part: object) -> bool:
    """Whether a section, or what one builds, is of this package and not of another."""
    return type(part).__module__.startswith(f"{__package__}.")


def entry_points_of(group: str) -> EntryPoints:
    """Entry points of installed packages. They are read once: to look through all packages takes milliseconds."""
    return _entry_points(group, tuple(sys.path))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:
    """path: where packages lie, by which another answer is due."""
    return entry_points(group=group)


def load_foreign(point: EntryPoint, what: str) -> Any:
    """What another package brings under an entry point; what: the kind of thing, for the message.

    Raises:
        VptError: its module cannot be imported, or has no such name.
    """
    try:
        return point.load()
    except Exception as error:  # of someone else's package
        raise VptError(
            f"{what} {point.name}: the package that brings it, {point.value}, cannot be loaded "
            f"({type(error).__name__}: {error}); update or remove it"
        ) from error


PROMPTS: Room[Any] = Room("vpt.prompts", "method", "prompts")
HEADS: Room[Any] = Room("vpt.heads", "kind", "head")
TUNINGS: Room[Any] = Room("vpt.tuning", "method", "tuning")
FAIR: Room[Any] = Room("vpt.fair", "method", "fair")

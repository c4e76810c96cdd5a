"""Code of other packages: where it fails is told in a sentence, and what it gives is shown in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor

from vpt.errors import VptError
from vpt.machine.scarce import is_out_of_memory
from vpt.words import with_article


@contextmanager
def blaming(*parts: object, doing: str) -> Iterator[None]:
    """What fails in code of another package is told in a sentence with its place; who debugs sees it as it came.

    parts: objects and functions that take part; where all are of this package nothing is told. doing: what they were
    asked for.
    """
    others = [where for where in map(_origin, parts) if not where[0].startswith(f"{__package__}.")]
    try:
        yield
    except Exception as error:
        if not others or isinstance(error, VptError | OSError) or is_out_of_memory(error):
            raise
        names = " and ".join(map(".".join, others))
        raise VptError(
            f"{names}: {doing} ends in {type(error).__name__}: {' '.join(str(error).split())}"
            f"{_place(error, {module for module, _ in others})}; mend it there (docs/extending.md says what "
            "each function is given and gives)"
        ) from error


def _origin(part: object) -> tuple[str, str]:
    """The module of a function, or of a part's class, and its name there; code that was executed may lie in none.

    Of a method, or a function with arguments that were given before, it is that of the function itself.
    """
    while isinstance(part, partial | MethodType):
        part = part.func if isinstance(part, partial) else part.__func__
    named: Any = part if isinstance(part, FunctionType | type) else type(part)
    return named.__module__ or "__main__", named.__qualname__


def _place(error: BaseException, modules: set[str]) -> str:
    """ " (line 12 of mirror.py)", the last one of these modules that was at work."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") in modules:
            found = f" (line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name})"
        trace = trace.tb_next
    return found


def shown(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {in_brackets(tuple(found.shape))}"
    if isinstance(found, tuple):
        return f"a tuple of {', '.join(type(each).__name__ for each in found)}"
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return "None" if found is None else with_article(type(found).__name__)


def in_brackets(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))})"

"""Code of other packages: whose it is, and where it failed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from vpt.backbones.vit_models import load_micro
from vpt.errors import VptError
from vpt.foreign import blaming


def load(name: str = "") -> None:
    raise ValueError(f"no {name}")


class Family:
    def load(self, name: str) -> None:
        load(name)


@pytest.mark.parametrize(
    ("function", "called"), [(load, "load"), (partial(load, "mine"), "load"), (Family().load, "Family.load")]
)
def test_a_failing_function_is_named_however_it_is_given(function: Callable[..., None], called: str) -> None:
    said = rf"test_foreign\.{called}: load mine ends in ValueError: no mine \(line \d+ of test_foreign\.py\); mend it"
    with pytest.raises(VptError, match=said), blaming(function, doing="load mine"):
        load("mine")


def test_functions_of_this_package_are_not_blamed_for_how_they_are_given() -> None:
    with pytest.raises(ValueError, match="no mine"), blaming(partial(load_micro), doing="load mine"):
        load("mine")

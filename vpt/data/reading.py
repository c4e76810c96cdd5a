"""Every case of a data set read once, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from vpt.parallel import cores, in_order
from vpt.progress import Tick
from vpt.readers import Kind

AT_ONCE: dict[Kind, int] = {"images": 4, "volumes": 2}  # of volumes each may take gigabytes


class Named(Protocol):
    @property
    def name(self) -> str: ...


Case = TypeVar("Case", bound=Named)
Facts = TypeVar("Facts")


def read_each(read: Callable[[Case], Facts], cases: Sequence[Case], kind: Kind, progress: Tick) -> list[Facts]:
    """read(case) of every case, in their order; progress: called after each with (done, total, name)."""
    found: list[Facts] = []
    for case, facts in zip(cases, in_order(read, cases, cores(AT_ONCE[kind])), strict=True):
        found.append(facts)
        progress(len(found), len(cases), case.name)
    return found

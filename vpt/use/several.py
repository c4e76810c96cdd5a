"""Lists of new scans: whether one holds several scans, or the channels of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.words import counted


def scans_in(given: Any, *plans: Plan) -> Sequence[Any] | None:
    """The scans of a list or tuple of several; None of what is one scan.

    To models of images, and of volumes of one channel, a list is several scans. To models of volumes of several
    channels it is those of one scan, a file for each, and a list of such lists is several scans.

    Args:
        plans: of the models that are given it.

    Raises:
        VptError: an empty list; lists beside other things in one; models to which it is not the same.
    """
    if not isinstance(given, list | tuple):
        return None
    kind = type(given).__name__
    if not given:
        raise VptError(f"an empty {kind}: expected scans; give at least one")
    nested = [isinstance(item, list | tuple) for item in given]
    if all(nested):
        return given
    if any(nested):
        lists, others = counted(sum(nested), "list"), counted(nested.count(False), "scan")
        raise VptError(
            f"a {kind} of {lists} and {others}: which of them are the channels of one? Give every scan as a list of "
            "its channels"
        )
    channels = {plan.kind == "volumes" and len(plan.channels) > 1 for plan in plans}
    if len(channels) > 1:
        raise VptError(
            f"a {kind} is several scans to some of the models, and the channels of one to others; ask each by itself"
        )
    return None if True in channels else given


def require_one(given: Sequence[Any] | None, *places: Any) -> None:
    """Raise VptError where a box or points, which lie in one scan, are given with several."""
    if given is not None and any(place is not None for place in places):
        raise VptError(
            f"a box or points lie in one scan, but a list of {counted(len(given), 'scan')} is given; give one at a time"
        )

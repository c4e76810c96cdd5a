"""Labels or classes that are one thing on two sides, where mirror images exchange the sides."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from vpt.data.plan import Plan
from vpt.data.transforms import TURNS
from vpt.vocabulary import Mirror
from vpt.words import listed

# By the axis of a patient that is turned, as the letters of an orientation name its two ends.
SIDES = {
    "LR": (("left", "right"), ("lt", "rt"), ("l", "r"), ("os", "od")),
    "AP": (("anterior", "posterior"), ("ant", "post"), ("ventral", "dorsal"), ("front", "back")),
    "IS": (("inferior", "superior"), ("inf", "sup"), ("lower", "upper"), ("bottom", "top"), ("caudal", "cranial")),
}
OF_PICTURES = "?IL"  # whose axes nobody says, but rows go down, and columns from one side to the other
WORDS = re.compile(r"[^\W\d_]+|\d+")


def mirror_doubts(names: Collection[str], mirror: Mirror, plan: Plan) -> list[str]:
    """A sentence where training is told to take mirror images, though names tell sides apart that these exchange.

    names: of labels or classes; mirror: `train.mirror`.
    """
    found = _exchanged(names, mirror, plan)
    if not found:
        return []
    instead = next((other for other in ("vertical", "horizontal") if _is_less(other, mirror, names, plan)), "none")
    pairs = listed((f"{first!r} and {second!r}" for first, second in found), 3)
    return [
        f"train.mirror={mirror} exchanges the sides of {pairs}, which then cannot be told apart by where they lie; "
        f"set train.mirror={instead}"
    ]


def _is_less(other: Mirror, mirror: Mirror, names: Collection[str], plan: Plan) -> bool:
    """Whether `other` takes some of the mirror images, and only such as exchange no sides."""
    return set(TURNS[other]) < set(TURNS[mirror]) and not _exchanged(names, other, plan)


def _exchanged(names: Collection[str], mirror: Mirror, plan: Plan) -> list[tuple[str, str]]:
    """Pairs of names that differ in a side alone, of which a mirror image makes the other."""
    cuts = [OF_PICTURES] if plan.kind == "images" else [each.orientation for each in (plan, *plan.others)]
    turned = {cut[axis] for cut in cuts for turn in TURNS[mirror] for axis in turn}
    axes = [axis for axis in SIDES if turned & {*axis}]
    return list(dict.fromkeys(pair for axis in axes for pair in _pairs(names, axis)))


def _pairs(names: Collection[str], axis: str) -> Iterator[tuple[str, str]]:
    words = {name: WORDS.findall(name.casefold()) for name in names}
    for one, other in SIDES[axis]:
        for first in names:
            swapped = [other if word == one else word for word in words[first]]
            if one in words[first]:
                yield from ((first, second) for second in names if words[second] == swapped)

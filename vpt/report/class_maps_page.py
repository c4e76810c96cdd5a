"""The page of `vpt explain` for class prompts and class queries: where each class is read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vpt.report.explain_page import Looked, MapCard, MapGroup, hidden_rows, over, page_of
from vpt.report.overlays import encoded
from vpt.report.report_page import FactGroup

HIDDEN = {
    "attention": "the patches that add most to the likeliest class (evidence), those that its prompt attends to most",
    "masks": "the patches that are least background",
}
HIDDEN_COLUMNS = {"attention": ["evidence", "attention"], "masks": ["least background"]}


class Told(Looked, Protocol):
    """What `vpt.use.explain_classes.ClassExplanation` says."""

    @property
    def kind(self) -> str: ...

    @property
    def maps(self) -> Sequence[Any]: ...

    @property
    def hidden_by_evidence(self) -> Sequence[Any] | None: ...


def class_maps_page(told: Told, facts: Sequence[FactGroup] = ()) -> str:
    """One file of HTML. facts: how to repeat it."""
    groups = [_masks(told)] if told.kind == "masks" else [_attention(told.image, each) for each in told.maps]
    return page_of(
        told,
        "Classes",
        strongest=[],
        groups=groups,
        hidden_first=HIDDEN[told.kind],
        hidden_columns=HIDDEN_COLUMNS[told.kind],
        hidden=hidden_rows(*([] if told.hidden_by_evidence is None else [told.hidden_by_evidence]), told.hidden),
        facts=facts,
    )


def _attention(image: np.ndarray, told: Any) -> MapGroup:
    said = (
        f"Its prompt gives the patches {told.map.sum():.1%} of its attention in the last block. Evidence is what each "
        "patch adds there to the logarithm of the probability (dark where it adds nothing or speaks against), which "
        "attention alone need not say"
    )
    named = [("mean of heads", told.map), *((f"head {number}", each) for number, each in enumerate(told.heads))]
    added = f"{told.evidence.min():+z.3f} to {told.evidence.max():+z.3f} a patch"
    cards = [MapCard("evidence", added, encoded(over(image, np.maximum(told.evidence, 0))))]
    cards += [
        MapCard(name, f"{weights.min():.2%} to {weights.max():.2%} a patch", encoded(over(image, weights)))
        for name, weights in named
    ]
    return MapGroup(f"{told.name}: {told.probability:.3f}", said, cards)


def _masks(told: Told) -> MapGroup:
    cards = [
        MapCard(
            each.name,
            f"{each.map.mean():.1%} of the image; probability {each.map.min():.2f} to {each.map.max():.2f}",
            encoded(over(told.image, each.map)),
        )
        for each in told.maps
    ]
    return MapGroup("Masks", "The probability of each label, of which its queries make the mask", cards)

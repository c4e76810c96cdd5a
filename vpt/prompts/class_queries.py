"""Class queries (EoMT, Kerssies et al., CVPR 2025): tokens for each label that join an encoder's last blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Context, Tokens
from vpt.errors import VptError
from vpt.prompts.base import MOST, RATE, Prompts, PromptSettings, PromptTable, require_positive, shared_over_batch
from vpt.sections import Compared


class OfClasses(PromptSettings):
    """The section of a method whose prompts belong to classes, so that their number follows from the data."""

    def build(self, spec: BackboneSpec) -> Prompts:
        raise VptError(
            f"prompts: {self.method} has prompts for each class, and here nobody says how many classes there are; "
            "choose deep, or train with `vpt train --prompts " + self.method + "`"
        )


class ClassQueriesConfig(OfClasses):
    method: Literal["class_queries"] = "class_queries"
    """Tokens for each label that travel through the last blocks; the head makes its mask of them (EoMT)."""
    count: int = Field(1, ge=1, le=MOST)
    """Queries per label, the background among the labels."""
    last: int = Field(3, ge=1)
    """They join the tokens before so many of the encoder's last blocks; what lies below can be stored."""
    before: int = Field(0, ge=0, le=MOST)
    """Prompts per block below these, as those of `deep`; 0 for none."""

    tasks = ("segmentation",)
    partner = "class_masks"
    compared = (
        Compared("class_queries", "class queries (EoMT), last 3 blocks", {}, RATE, aside=True),
        Compared(
            "class_queries_deep", "class queries (EoMT), deep prompts below, 10", {"before": 10}, RATE, aside=True
        ),
    )

    def build_for(self, spec: BackboneSpec, classes: int) -> ClassQueries:
        return ClassQueries(spec, classes=classes, **self.arguments())


class ClassQueries(Prompts):
    """`count` learned tokens for each class; they join before the `last` blocks, [CLS; queries; patches], and travel.

    There they ask the patches and are asked by them, under each block's own softmax. What has become of them in the
    end, `Features.prompts`, is read by the heads `class_scores` and `class_masks`; rows of one class are neighbours.
    Each block below has `before` prompts as keys and values (VPT-deep), or none.
    Parameters: (classes * count + before * (depth - last)) * C.

    Args:
        spec: of the encoder; classes: background included; count: per class; last: so many blocks have them;
        before: prompts in each block below.

    Raises:
        VptError: an encoder that leaves travelling prompts behind; more blocks than there are.
    """

    def __init__(self, spec: BackboneSpec, *, classes: int, count: int = 1, last: int = 3, before: int = 0):
        super().__init__()
        require_readable_end(spec)
        require_positive(classes=classes, count=count, last=last)
        if last > spec.depth:
            raise VptError(f"prompts: last is {last}; {spec.name} has {spec.depth} blocks, choose 1 to {spec.depth}")
        self.joins = spec.depth - last
        self.classes, self.count = classes, count
        self.queries = PromptTable(spec, blocks=(self.joins,), count=classes * count, project=None, dropout=0.0)
        self.below = None
        if before and self.joins:
            self.below = PromptTable(spec, blocks=range(self.joins), count=before, project=None, dropout=0.0)

    def first(self, depth: int) -> int:
        return self.joins if self.below is None else 0

    def context(self, i: int, batch: int) -> Context | None:
        return None if self.below is None or i >= self.joins else self.below.row(i, batch)

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Context | None]:
        batch = tokens.grid.shape[0]
        if i == self.joins:
            tokens = replace(tokens, prompts=shared_over_batch(self.queries.row(0, batch), batch))
        return tokens, self.context(i, batch)

    @torch.no_grad()
    def take_over(self, learned: Prompts, rows: Sequence[int | None]) -> None:
        assert isinstance(learned, ClassQueries)
        if self.below is not None and learned.below is not None:
            self.below.load_state_dict(learned.below.state_dict())
        own, theirs = self._by_class(), learned._by_class()
        for new, old in enumerate(rows):
            if old is not None:
                own[new].copy_(theirs[old])

    def _by_class(self) -> Tensor:
        """(classes, count, C), a view of what is learned."""
        assert isinstance(self.queries.tokens, Tensor)
        return self.queries.tokens[0].unflatten(0, (self.classes, self.count))


def require_readable_end(spec: BackboneSpec) -> None:
    """Raise VptError unless what has become of travelling prompts can be read at the encoder's end."""
    if not spec.finishes_prompts:
        raise VptError(
            f"prompts: no token can travel beside the patches to the end of {spec.name}, where a class is read from it "
            "(class_prompts, class_queries); choose a plain ViT, such as vit_micro, vit_small_patch16_224 or "
            "eva02_small_patch14_224, or deep prompts"
        )

"""One score for each class prompt, by one vector that all classes share (Prompt-CAM, CVPR 2025)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings
from vpt.heads.linear import ClassifyHead


class ClassScoresConfig(HeadSettings):
    """See `ClassScoreHead`."""

    kind: Literal["class_scores"] = "class_scores"
    """A score of each class prompt, by one vector for all of them: the head of `class_prompts`."""

    tasks = ("classification",)
    partner = "class_prompts"

    def build(self, backbone: Any, answer: Answer) -> ClassScoreHead:
        if answer.target == "grades":
            raise VptError(
                "head class_scores: the data have grades, which are told apart by questions between them, and a class "
                "prompt belongs to one class; set data.target=classes, or choose --prompts deep"
            )
        return ClassScoreHead(backbone.spec, classes=answer.classes, slices=answer.slices)


class ClassScoreHead(ClassifyHead):
    """What class prompts have become, z (B, classes, C) -> logits (B, classes): w . z_c + b, with one w for all.

    Since w knows no class, what tells classes apart is what their prompts have gathered. Of a volume each class weighs
    the slices by itself. Parameters: C + 1, whatever the number of classes.

    Args:
        spec: of the encoder; classes: as many as prompts travel; slices: volumes come as several slices.
    """

    rows = ()  # what is learned of a class lies in its prompt

    def __init__(self, spec: BackboneSpec, *, classes: int, slices: bool = False):
        super().__init__(spec, outputs=1, pool="mean", slices=slices)
        self.classes = classes
        self.reads = "all"

    def pool(self, features: Features) -> Tensor:
        """Features of B images -> (B, classes, C)."""
        return prompts_of(features, self.classes)[:, :, 0]

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, S, classes, C), of images S is 1 -> (B, classes)."""
        return super().classify(pooled).squeeze(-1)

    def start_from(self, learned: Head, rows: object) -> None:
        self.load_state_dict(learned.state_dict())


def prompts_of(features: Features, classes: int) -> Tensor:
    """What has become of prompts of that many classes -> (B, classes, n, C), n of each class."""
    found = 0 if features.prompts is None else features.prompts.shape[1]
    if features.prompts is None or not found or found % classes:
        raise VptError(
            f"head: prompts of {classes} classes are to be read and {found} have come through the encoder; take "
            "class_scores with class_prompts, and class_masks with class_queries"
        )
    return features.prompts.unflatten(1, (classes, -1))

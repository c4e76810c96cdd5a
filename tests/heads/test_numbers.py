"""What Python gives a head is held to what numbers it can take, in a sentence that names the argument."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_sam import make_tiny_sam

from vpt.errors import VptError
from vpt.heads import ClassifyHead, Head, MaskHead, SamDecoderHead
from vpt.heads.class_masks import ClassMaskHead
from vpt.heads.readout import ReadoutHead
from vpt.heads.unet import UnetHead


@pytest.mark.parametrize("head", [MaskHead, ReadoutHead, ClassMaskHead, UnetHead])
@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "2"])
def test_labels_that_are_none_or_no_number_are_refused(head: type[Head], classes: Any) -> None:
    with pytest.raises(
        VptError, match=rf"^head: classes is {classes!r}; (at least 1 is needed|expected a whole number)$"
    ):
        head(make_tiny_sam().spec, classes=classes)


@pytest.mark.parametrize(
    ("head", "told", "named"),
    [
        (MaskHead, {"classes": 2, "width": 3}, "width is 3; at least 4"),
        (MaskHead, {"classes": 2, "detail": 0}, "detail is 0; at least 1"),
        (ReadoutHead, {"classes": 2, "hidden": 0}, "hidden is 0; at least 1"),
        (ClassifyHead, {"outputs": 0}, "outputs is 0; at least 1"),
        (ClassifyHead, {"outputs": 2, "hidden": 1.0}, "hidden is 1.0; expected a whole number"),
    ],
)
def test_the_argument_is_named(head: type[Head], told: dict[str, Any], named: str) -> None:
    with pytest.raises(VptError, match=rf"^head: {named}"):
        head(make_tiny_sam().spec, **told)


def test_a_decoder_of_no_class_or_fewer_queries_than_none_is_refused() -> None:
    backbone = make_tiny_sam()
    with pytest.raises(VptError, match="head: classes is 0; at least 1"):
        SamDecoderHead(backbone, classes=0)
    with pytest.raises(VptError, match="head: queries is -1; at least 0"):
        SamDecoderHead(backbone, classes=2, queries=-1)

"""A head for other labels takes over what one has learned: rows by their place, all else as it is, new rows fresh."""

from __future__ import annotations

import pytest
import torch
from encoders import plain_spec
from torch import Tensor

from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads import ClassifyHead, MaskHead
from vpt.heads.base import Head
from vpt.heads.readout import ReadoutHead
from vpt.heads.unet import UnetHead

SPEC = plain_spec(width=16, depth=2, heads=2, image_size=(32, 32), patch=(8, 8))
ROWS = (0, None, 2, 1)  # of a head for four, from one for three


def features(width: int = 16) -> Features:
    torch.manual_seed(3)
    grid = torch.randn(2, width, 4, 4)
    return Features(prefix=torch.zeros(2, 0, width), grid=grid, levels=(torch.randn(2, width, 4, 4),) * 2)


def made(kind: str, classes: int) -> Head:
    if kind == "mask":
        return MaskHead(SPEC, classes=classes, width=16, detail=8, levels=2)
    if kind == "readout":
        return ReadoutHead(SPEC, classes=classes, levels=2, hidden=8)
    if kind == "unet":
        return UnetHead(SPEC, classes=classes, width=4)
    return ClassifyHead(SPEC, outputs=classes, hidden=8 if kind == "mlp" else None)


def shaken(head: Head) -> Head:
    """As if it had learned something, every tensor."""
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return head


def answers(head: Head, given: Features) -> Tensor:
    torch.manual_seed(4)
    return head.eval()(given, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("kind", ["mask", "readout", "unet", "linear", "mlp"])
def test_labels_that_were_learned_are_answered_as_before(kind: str) -> None:
    torch.manual_seed(0)
    learned, head = shaken(made(kind, 3)), made(kind, 4)
    fresh = head.state_dict()[head.rows[0].tensor][1].clone()
    head.start_from(learned, ROWS)
    before, now = answers(learned, features()), answers(head, features())
    torch.testing.assert_close(now[:, [0, 2, 3]], before[:, [0, 2, 1]], rtol=0, atol=1e-6)
    assert torch.equal(head.state_dict()[head.rows[0].tensor][1], fresh)
    assert not any(torch.equal(now[:, 1], before[:, k]) for k in range(3))


def test_a_head_that_does_not_tell_its_rows_is_refused_by_name() -> None:
    class Plain(Head):
        def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
            return images

    with pytest.raises(VptError, match=r"Plain does not say which of its tensors have a row for each label"):
        Plain().start_from(Plain(), [0, None])

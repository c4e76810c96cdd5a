"""What is added to every image: where it lies, how it starts, what a model makes of it."""

from __future__ import annotations

import pytest
import torch

from vpt.errors import VptError
from vpt.trigger import Trigger


@pytest.mark.parametrize(("form", "width", "pixels"), [("border", 2, 64 - 16), ("patch", 3, 9)])
def test_it_covers_its_form_and_starts_at_nothing(form: str, width: int, pixels: int) -> None:
    trigger, images = Trigger(8, form=form, width=width), torch.rand(2, 3, 8, 8)
    assert trigger.offset.shape == (3, pixels)
    assert torch.equal(trigger(images), images)

    with torch.no_grad():
        trigger.offset.copy_(torch.arange(1, 3 * pixels + 1).view(3, pixels))
    added = (trigger(torch.zeros(1, 3, 8, 8)))[0]
    assert torch.equal(added[:, trigger.mask(images.device)], trigger.offset), "its rows are those of its pixels"
    assert torch.equal(added != 0, trigger.mask(images.device).expand(3, 8, 8))
    assert trigger.mask(images.device)[[0, 4], [0, 4]].tolist() == [True, False]


def test_its_gradient_is_that_of_its_pixels_over_the_batch() -> None:
    trigger = Trigger(8, form="border", width=1)
    slopes = torch.rand(5, 3, 8, 8)
    (trigger(torch.rand(5, 3, 8, 8)) * slopes).sum().backward()
    assert torch.allclose(trigger.offset.grad, slopes.sum(0)[:, trigger.mask(slopes.device)])


@pytest.mark.parametrize(("form", "width", "most"), [("border", 4, 3), ("patch", 8, 7)])
def test_it_may_not_cover_the_image(form: str, width: int, most: int) -> None:
    with pytest.raises(VptError, match=f"images of 8 px; expected {most} at most"):
        Trigger(8, form=form, width=width)

"""A learned border or patch that is added to every image before the encoder sees it (FairReprogram's trigger)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vpt.errors import VptError
from vpt.vocabulary import COLOURS

TriggerForm = Literal["border", "patch"]


class Trigger(nn.Module):
    """Images (B, 3, S, S) in [0, 1] -> the same plus what is learned, in those units; it starts at zero.

    Zhang et al., Fairness reprogramming, NeurIPS 2022, section 3. Parameters: 3 for each of its pixels.

    Args:
        size: S; form: "border", all pixels up to `width` from an edge, or "patch", a square of that side in the upper
            left corner.

    Raises:
        VptError: an image that it would cover.
    """

    def __init__(self, size: int, *, form: TriggerForm, width: int):
        super().__init__()
        most = (size - 1) // 2 if form == "border" else size - 1
        if width > most:
            raise VptError(f"fair.width={width}: a {form} in images of {size} px; expected {most} at most")
        self.size, self.form, self.width = size, form, width
        self.offset = nn.Parameter(torch.zeros(COLOURS, int(self.mask(torch.device("cpu")).sum())))

    def mask(self, device: torch.device) -> Tensor:
        """(S, S) bool, its pixels."""
        places = torch.arange(self.size, device=device)
        if self.form == "patch":
            near = places < self.width
            return near[:, None] & near
        near = torch.minimum(places, self.size - 1 - places) < self.width
        return near[:, None] | near

    def forward(self, images: Tensor) -> Tensor:
        empty = self.offset.new_zeros(COLOURS, self.size, self.size)
        there = self.mask(self.offset.device).expand_as(empty)
        return images + empty.masked_scatter(there, self.offset)

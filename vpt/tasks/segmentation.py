"""Segmentation: the loss on slices, and the way from a model's logits to labels on the scan's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from torch import Tensor, nn

from vpt.data.framing import batches_of_slices, placement_of
from vpt.data.hints import in_window
from vpt.data.plan import Plan
from vpt.machine.memory import MOST
from vpt.model import PromptedModel
from vpt.tasks.frozen import FrozenPart
from vpt.tasks.images import Normalise


def dice_ce(weights: Sequence[float] | None = None, smoothing: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits (B, K, H, W), classes (B, H, W) -> soft Dice of the foreground over the batch, plus cross-entropy.

    Dice is taken over the whole batch, so that slices without a label do not count as failures. `weights`, one per
    class with the background, act on both; `smoothing` of the labels on the cross-entropy.
    """
    loss = DiceCELoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float32),
        label_smoothing=smoothing,
    )
    return lambda logits, classes: loss.to(logits.device)(logits.float(), classes.unsqueeze(1))


class OnImages(nn.Module):
    """A model on images (B, 3, S, S) in [0, 1], as the data give them."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.normalise = Normalise(model.backbone.spec)
        self.model = model

    def forward(self, images: Tensor, hints: Tensor | None = None) -> Tensor:
        return self.model(self.normalise(images), hints)


class OnStored(nn.Module):
    """A model of whose encoder a part was done before, on images (B, 3, S, S) and on what that gave, (B, V).

    Without that on the images alone, as `OnImages`.
    """

    def __init__(self, part: FrozenPart):
        super().__init__()
        self.on_images = OnImages(part.model)
        self.model = part.model
        self.part = part

    def rows(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, V)."""
        return self.part.rows(self.on_images.normalise(images))

    def forward(self, images: Tensor, rows: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        if rows is None:
            return self.on_images(images, hints)
        return self.model.head(self.part.features(rows), self.on_images.normalise(images), hints)


@torch.inference_mode()
def segment_slices(
    forward: Callable[..., Tensor],
    slices: np.ndarray,
    plan: Plan,
    *,
    pixels: tuple[int, int],
    device: torch.device,
    classes: int,
    batch_size: int = MOST,
    hints: np.ndarray | None = None,
) -> np.ndarray:
    """Prepared slices (N, C, h, w) -> classes (N, rows, columns) on the scan's own pixels, uint8 up to 256 classes.

    `forward` maps images (B, 3, S, S) in [0, 1] to logits (B, K, S, S). A slice larger than the encoder's image is
    tiled with overlap; a smaller one is padded as in training. Logits are resized to `pixels` and the argmax is taken
    there, slice by slice, so memory does not grow with the depth of the scan. `hints` (N, M, 3), in pixels of the
    slices, are given to `forward` as its second argument, those of a tile to the tile. `batch_size` images at most go
    through `forward` at once; see `vpt.machine.memory.inference_batch`.
    """
    size = (plan.image_size, plan.image_size)
    tiles = batch_size  # of slices that are tiled, no more at once than would be as large together
    batch_size = max(1, min(batch_size, batch_size * plan.image_size**2 // (slices.shape[2] * slices.shape[3])))
    placement = placement_of((slices.shape[2], slices.shape[3]), plan)
    done = np.zeros((len(slices), *pixels), np.min_scalar_type(classes - 1))
    for start, images in zip(
        range(0, len(slices), batch_size), batches_of_slices(slices, plan, batch_size), strict=True
    ):
        places = np.arange(start, start + len(images))
        if plan.skip_blank:
            places = places[np.ptp(images.flatten(1).numpy(), axis=1) > 0]
        if not len(places):
            continue
        framed = torch.from_numpy(placement.pad(images.numpy()[places - start], plan.fill))
        own = None if hints is None else hints[places]
        on_tiles = forward if own is None else _with_hints(forward, placement.move(own), plan.image_size)
        logits = sliding_window_inference(
            framed.to(device), size, tiles, on_tiles, overlap=0.25, mode="gaussian", with_coord=own is not None
        )
        assert isinstance(logits, Tensor)
        # slice by slice: classes times the scan's pixels can be large
        for place, one in zip(places, placement.crop(logits).float().split(1), strict=True):
            one = F.interpolate(one, size=pixels, mode="bilinear", align_corners=False)
            done[place] = likeliest(one[0]).cpu().numpy()
    return done


def likeliest(logits: Tensor) -> Tensor:
    """(K, H, W) -> (H, W), the class with the largest; of equal ones the first.

    As `argmax(0)`, which takes a CPU twenty times as long, and so longer than a small encoder: it reads across classes.
    """
    if logits.device.type != "cpu":
        return logits.argmax(0)
    best, found = logits[0].clone(), torch.zeros(logits.shape[1:], dtype=torch.int32)
    for k, one in enumerate(logits[1:], start=1):
        found.masked_fill_(one > best, k)
        torch.maximum(best, one, out=best)
    return found


def _with_hints(
    forward: Callable[..., Tensor], hints: np.ndarray, size: int
) -> Callable[[Tensor, Sequence[Sequence[slice]]], Tensor]:
    """`forward` on tiles and their places, as MONAI gives them, with the hints (B, M, 3) that belong to each tile."""

    def on_tiles(tiles: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        own = [in_window(hints[image.start], top.start, left.start, size) for image, _, top, left in places]
        return forward(tiles, torch.from_numpy(np.stack(own)).to(tiles.device))

    return on_tiles

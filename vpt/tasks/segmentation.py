"""Segmentation: the loss on slices, and the way from a model's logits to labels on the scan's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from torch import Tensor, nn

from vpt.data.framing import Slices, batches_of_slices, placement_of
from vpt.data.hints import in_window
from vpt.data.label_values import IGNORED
from vpt.data.plan import Plan
from vpt.machine.memory import MOST
from vpt.model import Output, PromptedModel
from vpt.progress import Tick, silent
from vpt.tasks.batch import Batch, Forward, Loss, info_of
from vpt.tasks.frozen import FrozenPrefix, OverPrefix
from vpt.tasks.images import Normalise


def dice_ce(weights: Sequence[float] | None = None, smoothing: float = 0.0) -> Loss:
    """Logits (B, K, H, W), truth (B, H, W) of classes -> soft Dice of the foreground over the batch, + cross-entropy.

    Dice is taken over the whole batch, so that slices without a label do not count as failures. `weights`, one per
    class with the background, act on both; `smoothing` of the labels on the cross-entropy.
    """
    both = DiceCELoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float32),
        label_smoothing=smoothing,
    )

    def loss(output: Output, batch: Batch) -> Tensor:
        return both.to(output.logits.device)(output.logits.float(), batch["truth"].unsqueeze(1))

    return loss


def where_it_counts(loss: Loss) -> Loss:
    """A loss of logits (B, K, H, W) over the pixels that are not IGNORED alone, as if they were one long image.

    0 where none is left. For losses that are sums over the whole batch, as `dice_ce` is.
    """

    def counted(output: Output, batch: Batch) -> Tensor:
        truth = batch["truth"]
        counts = truth != IGNORED
        if not counts.any():
            return output.logits.float().sum() * 0
        logits = output.logits.movedim(1, -1)[counts].T[None, :, None]  # (1, K, 1, pixels)
        return loss(output._replace(logits=logits), Batch(**{**batch, "truth": truth[counts][None, None]}))

    return counted


class SliceModel(nn.Module):
    """A model on the images of a batch, slices (B, 3, S, S) in [0, 1], and their hints where there are any."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.normalise = Normalise.of(model)
        self.model = model

    def forward(self, batch: Batch) -> Output:
        return self.model.run(self.normalise(batch["images"]), batch.get("hints"), info_of(batch))


class SliceModelOverPrefix(OverPrefix):
    """The blocks of a model above its frozen prefix, and a head that may look at the images (B, 3, S, S) as well.

    Of a batch without rows it is the whole model on the images, as `SliceModel`.
    """

    half_precision = True

    def __init__(self, prefix: FrozenPrefix):
        super().__init__()
        self.on_slices = SliceModel(prefix.model)
        self.model = prefix.model
        self.prefix = prefix
        self.kind, self.values = f"block{prefix.first}", prefix.size

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, V)."""
        return self.prefix.rows(self.on_slices.normalise(images))

    def forward(self, batch: Batch) -> Output:
        if "rows" not in batch:
            return self.on_slices(batch)
        images = self.on_slices.normalise(batch["images"])
        encoded = self.prefix.encode(batch["rows"], images, info_of(batch))
        return Output(self.model.head(encoded.features, images, batch.get("hints")), encoded.penalty)


def segment_slices(
    forward: Forward,
    slices: Slices,
    plan: Plan,
    *,
    pixels: tuple[int, int],
    device: torch.device,
    classes: int,
    batch_size: int = MOST,
    hints: np.ndarray | None = None,
) -> np.ndarray:
    """`likeliest_classes` of `logits_of_slices`: prepared slices (N, C, h, w) -> (N, rows, columns) on the scan's own
    pixels, uint8 up to 256 classes.
    """
    found = logits_of_slices(forward, slices, plan, pixels=pixels, device=device, batch_size=batch_size, hints=hints)
    return likeliest_classes(found, (len(slices), *pixels), classes)


@torch.inference_mode()
def likeliest_classes(
    found: Iterable[Tensor | None], shape: Sequence[int], classes: int, progress: Tick = silent
) -> np.ndarray:
    """Logits or probabilities (K, rows, columns) of each slice, None for background -> classes of that shape.

    uint8 up to 256 of them. Slice by slice, so memory does not grow with the depth of the scan, and progress tells it.
    """
    done = np.zeros(shape, np.min_scalar_type(classes - 1))
    for place, one in enumerate(found):
        if one is not None:
            done[place] = likeliest(one).cpu().numpy()
        progress(place + 1, len(done), "")
    return done


@torch.inference_mode()
def probabilities_of(
    found: Iterable[Tensor | None], pixels: tuple[int, int], classes: int, device: torch.device
) -> Iterator[Tensor]:
    """What `logits_of_slices` gives -> of each slice in order (K, rows, columns); a skipped one is background."""
    for logits in found:
        if logits is None:
            background = torch.zeros(classes, *pixels, device=device)
            background[0] = 1
            yield background
        else:
            yield logits.softmax(0)


@torch.inference_mode()
def logits_of_slices(
    forward: Forward,
    slices: Slices,
    plan: Plan,
    *,
    pixels: tuple[int, int],
    device: torch.device,
    batch_size: int = MOST,
    hints: np.ndarray | None = None,
) -> Iterator[Tensor | None]:
    """Prepared slices (N, C, h, w) -> of each in order logits (K, rows, columns) float32 on the scan's own `pixels`.

    None where the plan skips a blank one. They are resized one by one, when they are asked for.

    `forward` makes logits (B, K, S, S) of a batch of images (B, 3, S, S) in [0, 1]. A slice larger than the encoder's
    image is tiled with overlap; a smaller one is padded as in training. `hints` (N, M, 3), in pixels of the slices, are
    in the batch as well, those of a tile with the tile. `batch_size` images at most go through `forward` at once; see
    `vpt.machine.memory.inference_batch`.
    """
    _, _, rows, columns = slices.shape
    size = (plan.image_size, plan.image_size)
    tiles = batch_size  # of slices that are tiled, no more at once than would be as large together
    batch_size = max(1, min(batch_size, batch_size * plan.image_size**2 // (rows * columns)))
    placement, start = placement_of((rows, columns), plan), 0
    for images in batches_of_slices(slices, plan, batch_size):
        shown = np.ptp(images.flatten(1).numpy(), axis=1) > 0 if plan.skip_blank else np.ones(len(images), bool)
        found: Iterator[Tensor] = iter(())
        if shown.any():
            framed = torch.from_numpy(placement.pad(images.numpy()[shown], plan.around))
            own = None if hints is None else hints[start : start + len(images)][shown]
            on_tiles = _on_tiles(forward) if own is None else _with_hints(forward, placement.move(own), plan.image_size)
            logits = sliding_window_inference(
                framed.to(device), size, tiles, on_tiles, overlap=0.25, mode="gaussian", with_coord=own is not None
            )
            assert isinstance(logits, Tensor)
            found = iter(placement.crop(logits).float())
        yield from (_resized(next(found), pixels) if each else None for each in shown)
        start += len(images)


def _resized(logits: Tensor, pixels: tuple[int, int]) -> Tensor:
    """Logits (K, h, w) -> (K, rows, columns) on the scan's own pixels."""
    return F.interpolate(logits[None], size=pixels, mode="bilinear", align_corners=False)[0]


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


def _on_tiles(forward: Forward) -> Callable[[Tensor], Tensor]:
    return lambda tiles: forward(Batch(images=tiles)).logits


def _with_hints(
    forward: Forward, hints: np.ndarray, size: int
) -> Callable[[Tensor, Sequence[Sequence[slice]]], Tensor]:
    """`forward` on tiles and their places, as MONAI gives them, with the hints (B, M, 3) that belong to each tile."""

    def on_tiles(tiles: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        own = [in_window(hints[image.start], top.start, left.start, size) for image, _, top, left in places]
        return forward(Batch(images=tiles, hints=torch.from_numpy(np.stack(own)).to(tiles.device))).logits

    return on_tiles

"""What several tasks of one encoder make of a scan, side by side: `vpt.streams` from scans to masks and classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vpt.machine.precision import autocast
from vpt.model import Output, PromptedModel
from vpt.progress import Tick, silent
from vpt.streams import Part, encode_together
from vpt.tasks.batch import Batch
from vpt.tasks.classification import head_of, to_probabilities
from vpt.tasks.images import Normalise
from vpt.tasks.segmentation import likeliest, logits_of_slices
from vpt.use.classifier import Classifier
from vpt.use.inference import InPrecision, in_smaller_batches
from vpt.use.prepared_scan import PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.vocabulary import Chosen

SEEN = (
    "plane",
    "pixel_mm",
    "image_size",
    "neighbours",
    "channels",
    "intensity",
    "padding",
    "fill",
    "interpolation",
    "kind",
    "slices",
    "skip_blank",
    "crop",
)
"""What of a plan decides the images that an encoder is given of a scan."""

Asked = tuple[Classifier, int]
"""Who is asked, and about which of the stacks, by its number."""


def sight_of(member: Segmenter | Classifier) -> Hashable:
    """Equal for tasks to which the same scan is the same images. One that mixes channels, adds to images, or looks in
    several planes, sees what no other does; so does one whose masks are made of all slices at once.
    """
    if member.model.mixing is not None or member.model.trigger is not None or _needs_more(member):
        return id(member)
    return tuple(getattr(member.plan, name) for name in SEEN)


def _needs_more(member: Segmenter | Classifier) -> bool:
    """Whether its masks are made of more than the logits of each slice: of other planes, or of all slices at once."""
    return bool(member.plan.others) or (isinstance(member, Segmenter) and member.decision != "likeliest")


class SideBySide(nn.Module):
    """Models of one encoder and one sight on the images (B, 3, S, S) of a batch -> their logits (B, sum of K, S, S)."""

    def __init__(self, models: Sequence[PromptedModel]):
        super().__init__()
        self.models = list(models)  # a plain list: whose they are, moves them
        self.normalise = Normalise.of(models[0])

    def forward(self, batch: Batch) -> Output:
        images = self.normalise(batch["images"])
        parts = [Part(model, range(len(images))) for model in self.models]
        features = encode_together(self.models[0].backbone, images, parts)
        logits = [model.head(found, images) for model, found in zip(self.models, features, strict=True)]
        return Output(torch.cat(logits, 1))


def segment_together(
    members: Sequence[Segmenter],
    scan: PreparedScan,
    precision: Chosen,
    progress: Tick = silent,
) -> list[np.ndarray]:
    """Of each of several tasks of one sight what its `classes_of` gives of a scan that one of them prepared."""
    first = members[0]
    if _needs_more(first):  # alone, see `sight_of`
        return [first.classes_of(scan, None, progress)]
    together = SideBySide([member.model for member in members]).to(first.device)
    forward = InPrecision(together, precision, first.device)

    def in_batches(batch: int) -> list[np.ndarray]:
        pixels = scan.oriented.shape[1:]
        found = logits_of_slices(forward, scan.slices, first.plan, pixels=pixels, device=first.device, batch_size=batch)
        return _likeliest(found, scan.oriented.shape, [len(member.labels) for member in members], progress)

    batch = max(1, min(member.batch_size for member in members) // len(members))
    return in_smaller_batches(scan.reader.name, batch, in_batches)


@torch.inference_mode()
def _likeliest(
    found: Iterable[Tensor | None], shape: Sequence[int], classes: Sequence[int], progress: Tick
) -> list[np.ndarray]:
    """Logits (sum of K, rows, columns) of each slice, None for background -> of each task its classes of that shape."""
    done = [np.zeros(shape, np.min_scalar_type(k - 1)) for k in classes]
    for place, logits in enumerate(found):
        if logits is not None:
            for own, mask in zip(logits.split(list(classes)), done, strict=True):
                mask[place] = likeliest(own).cpu().numpy()
        progress(place + 1, shape[0], "")
    return done


def classify_together(
    stacks: Sequence[np.ndarray], asked: Sequence[Asked], precision: Chosen, progress: Tick = silent
) -> list[np.ndarray]:
    """Prepared scans (S, 3, size, size) uint8, who is asked about which -> the probabilities (K,) of each."""
    by_stack = sorted(range(len(asked)), key=lambda number: asked[number][1])  # so that what is common runs once
    found: dict[int, np.ndarray] = {}

    def in_batches(batch: int) -> None:
        for numbers in _batches([n for n in by_stack if n not in found], stacks, asked, batch):
            rows = _classify([asked[number] for number in numbers], stacks, precision)
            found.update(zip(numbers, rows, strict=True))
            progress(len(found), len(asked), "")

    if asked:
        in_smaller_batches("the images given", min(member.batch_size for member, _ in asked), in_batches)
    return [found[number] for number in range(len(asked))]


def _batches(
    numbers: Iterable[int], stacks: Sequence[np.ndarray], asked: Sequence[Asked], most: int
) -> Iterator[list[int]]:
    """Requests in their order, in batches of so many slices at most, or of one request."""
    batch: list[int] = []
    slices = 0
    for number in numbers:
        own = len(stacks[asked[number][1]])
        if batch and slices + own > most:
            yield batch
            batch, slices = [], 0
        batch.append(number)
        slices += own
    if batch:
        yield batch


@torch.inference_mode()
def _classify(asked: Sequence[Asked], stacks: Sequence[np.ndarray], precision: Chosen) -> list[np.ndarray]:
    """One batch: the probabilities (K,) of each request."""
    device, images, slices = asked[0][0].device, [], dict[int, range]()
    for member, place in asked:
        if place in slices:
            continue
        own = torch.from_numpy(stacks[place].astype(np.float32) / 255).to(device)
        images.append(Normalise.of(member.model).to(device)(own))
        start = sum(map(len, slices.values()))
        slices[place] = range(start, start + len(own))
    members = list({id(member): member for member, _ in asked}.values())
    own_requests = [[n for n, (each, _) in enumerate(asked) if each is member] for member in members]
    parts = [
        Part(member.model, [image for n in requests for image in slices[asked[n][1]]])
        for member, requests in zip(members, own_requests, strict=True)
    ]
    found: dict[int, np.ndarray] = {}
    with autocast(precision, device):
        features = encode_together(members[0].model.backbone, torch.cat(images), parts)
        for member, requests, own_features in zip(members, own_requests, features, strict=True):
            head = head_of(member.model)
            pooled = head.pool(own_features).split([len(slices[asked[n][1]]) for n in requests])
            logits = torch.cat([head.classify(each.unsqueeze(0)) for each in pooled]).float().cpu()
            rows = to_probabilities(logits, member.target, member.temperature).numpy()
            found |= zip(requests, rows, strict=True)
    return [found[number] for number in range(len(asked))]

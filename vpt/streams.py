"""Several tasks in one pass of one encoder: what they have in common is computed once, what differs side by side.

Below the first prompts of a task its images run as in the frozen encoder, in a stream that all such tasks share. From
there on the task has a stream of its own. In every block the streams that are alike (as many prompts beside their
tokens, as many that travel) run as one batch, each sample with its task's prompts. So nothing is padded or masked, and
what a task gets is what it gets alone, up to the rounding of a larger batch.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.contract import entering, first_block
from vpt.model import UNKNOWN, Below, PromptedModel, informed
from vpt.prompts.base import shared_over_batch


@dataclass(frozen=True)
class Part:
    """What one task is asked: the images of a pass that it looks at, by their numbers, in any order and number."""

    model: PromptedModel
    images: Sequence[int]


@dataclass
class Stream:
    """Tokens of some images on their way. part: the task that they belong to, None as long as no prompts met them.

    kept: the grids (B, C, H, W) that left the blocks which heads read, by block; state: of the task's prompts.
    """

    part: Part | None
    images: list[int]
    tokens: Tokens
    kept: dict[int, Tensor] = field(default_factory=dict)
    state: Any = None

    def enter(self, i: int) -> Context | None:
        """What block `i` attends to besides its tokens, which become those that enter it."""
        if self.part is None:
            return None
        model = self.part.model
        self.tokens, context = entering(model.acting_prompts, model.backbone.spec.depth)(i, self.tokens, self.state)
        return context

    def of(self, images: Sequence[int]) -> tuple[Tokens, dict[int, Tensor]]:
        """Tokens and kept grids of these images."""
        if list(images) == self.images:
            return self.tokens, dict(self.kept)
        places = torch.tensor([self.images.index(image) for image in images], device=self.tokens.grid.device)
        return self.tokens.of(places), {level: grid[places] for level, grid in self.kept.items()}

    def keep(self, i: int, levels: Collection[int]) -> None:
        if i in levels:
            self.kept[i] = self.tokens.grid.permute(0, 3, 1, 2)


def encode_together(backbone: Backbone, images: Tensor, parts: Sequence[Part]) -> list[Features]:
    """Normalised images (B, 3, H, W) -> of each part all that its head reads, of its images in their order.

    The models are those of this backbone, which all of them leave frozen.
    """
    depth = backbone.spec.depth
    levels = {level for part in parts for level in part.model.head.levels}
    shared = Stream(None, list(range(len(images))), backbone.embed(images))
    waiting, begun = dict(enumerate(parts)), dict[int, Stream]()
    for i in range(depth):
        for number in [number for number, part in waiting.items() if first_block(part.model.prompts, depth) <= i]:
            begun[number] = _begin(i, shared, waiting.pop(number), images)
        if waiting:
            _narrow(shared, waiting.values())
        streams = [*begun.values(), *([shared] if waiting else [])]
        _run_block(backbone, i, streams)
        for stream in streams:
            stream.keep(i, levels)
    begun |= {number: _begin(depth, shared, part, images) for number, part in waiting.items()}
    return _finished(backbone, [begun[number] for number in range(len(parts))])


def _begin(i: int, shared: Stream, part: Part, images: Tensor) -> Stream:
    """A task's own stream, from block `i` on, where its prompts come in."""
    tokens, kept = shared.of(part.images)
    model, prompts = part.model, part.model.acting_prompts
    info = informed(UNKNOWN, prompts, model.backbone, Below(i, tokens))
    return Stream(part, list(part.images), tokens, kept, prompts.begin(_some(images, part), info))


def _some(images: Tensor, part: Part) -> Tensor:
    own = list(part.images)
    return images if own == list(range(len(images))) else images[own]


def _narrow(shared: Stream, parts: Collection[Part]) -> None:
    """Drop from the shared stream the images that no task waits for any more."""
    awaited = sorted({image for part in parts for image in part.images})
    if awaited != shared.images:
        shared.tokens, shared.kept = shared.of(awaited)
        shared.images = awaited


def _run_block(backbone: Backbone, i: int, streams: Sequence[Stream]) -> None:
    """Run it for all streams, those together that are alike."""
    alike: dict[tuple[Hashable, Keep], list[tuple[Stream, Context | None]]] = {}
    for stream in streams:
        context, rows = stream.enter(i), _rows(stream, i, backbone.spec.depth)
        key = (*_kind(context), stream.tokens.prompts.shape[1])
        alike.setdefault((key, rows), []).append((stream, context))
    for (_, rows), group in alike.items():
        sizes = [len(stream.images) for stream, _ in group]
        tokens = Tokens.joined([stream.tokens for stream, _ in group])
        context = _beside([context for _, context in group], sizes)
        left = backbone.block(i, tokens, context, rows).split(sizes)
        for (stream, _), own in zip(group, left, strict=True):
            stream.tokens = own


def _rows(stream: Stream, i: int, depth: int) -> Keep:
    """Which rows of a block's tokens are read by anyone."""
    if stream.part is None or i < depth - 1 or i in stream.part.model.head.levels:
        return "all"
    return stream.part.model.head.reads


def _kind(context: Context | None) -> tuple[Hashable, ...]:
    """What contexts of one batch have in common, their number of prompts among it."""
    if context is None:
        return (None, 0, False)
    if isinstance(context, KeysValues):
        return (KeysValues, context.keys.shape[2], False)
    if isinstance(context, SeparateContext):
        return (SeparateContext, context.prompts.shape[-2], context.normed)
    return (Tensor, context.shape[-2], False)


def _beside(contexts: Sequence[Context | None], sizes: Sequence[int]) -> Context | None:
    """Contexts of one kind, of batches of these sizes, as that of all samples."""
    first = contexts[0]
    if len(contexts) == 1 or first is None:
        return first
    if isinstance(first, KeysValues):
        pairs = [(each.keys, each.values) for each in contexts if isinstance(each, KeysValues)]
        keys, values = (
            torch.cat([part.expand(size, -1, -1, -1) for part, size in zip(of_all, sizes, strict=True)])
            for of_all in zip(*pairs, strict=True)
        )
        return KeysValues(keys, values)
    if isinstance(first, SeparateContext):
        apart = [each.prompts for each in contexts if isinstance(each, SeparateContext)]
        return replace(first, prompts=_stacked(apart, sizes))
    return _stacked([each for each in contexts if isinstance(each, Tensor)], sizes)


def _stacked(prompts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """(P, C) or (B, P, C) each -> (sum of sizes, P, C)."""
    return torch.cat([shared_over_batch(each, size) for each, size in zip(prompts, sizes, strict=True)])


def _finished(backbone: Backbone, streams: Sequence[Stream]) -> list[Features]:
    """The features that each stream's head reads, at the encoder's end."""
    alike: dict[Hashable, list[int]] = {}
    for number, stream in enumerate(streams):
        tokens = stream.tokens
        alike.setdefault((tokens.prefix.shape[1], tokens.prompts.shape[1], tokens.grid.shape[1:]), []).append(number)
    found: dict[int, Features] = {}
    for numbers in alike.values():
        group = [streams[number] for number in numbers]
        features = backbone.finish(Tokens.joined([stream.tokens for stream in group]))
        found |= zip(numbers, _split(features, [len(stream.images) for stream in group]), strict=True)
    return [
        replace(found[number], levels=(*_read(stream), *found[number].levels)) for number, stream in enumerate(streams)
    ]


def _read(stream: Stream) -> list[Tensor]:
    assert stream.part is not None
    return [stream.kept[level] for level in sorted(stream.part.model.head.levels)]


def _split(features: Features, sizes: Sequence[int]) -> list[Features]:
    def parts(tensor: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(sizes) if tensor is None else tensor.split(list(sizes))

    levels = list(zip(*(level.split(list(sizes)) for level in features.levels), strict=True)) or [()] * len(sizes)
    alike = (features.grid, features.prefix, features.pooled, features.prompts)
    grids, prefixes, pooled, prompts = map(parts, alike)
    split = zip(grids, prefixes, levels, pooled, prompts, strict=True)
    return [Features(*each) for each in split]  # type: ignore[arg-type]

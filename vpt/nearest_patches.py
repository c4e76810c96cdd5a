"""Of images the patches whose keys are nearest to those of a model's prompts, block by block.

A patch attends to a prompt by the product of its query with the prompt's key, so prompts and patches with like keys
draw the same queries. Compared are keys as a block projects them (before any rotation by position, of which prompts
have none), those of all heads as one vector, so that a head with longer keys counts more, as it does in the softmax; by
their cosine, after the mean key of all patches is taken off, which a softmax does not see: it adds the same to every
score of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.backbones.base import KeysValues
from vpt.explaining import beside_tokens
from vpt.model import PromptedModel
from vpt.progress import Tick, silent


class Near(NamedTuple):
    """A patch of an image, both by their numbers, in a grid of rows and columns; cosine: of its key with a prompt's."""

    image: int
    row: int
    column: int
    rows: int
    columns: int
    cosine: float


class BlockKeys(NamedTuple):
    """Of one image in a block: keys of prompts (P, heads * d) and of patches (rows, columns, heads * d)."""

    prompts: Tensor
    patches: Tensor


@torch.no_grad()
def nearest_patches(
    model: PromptedModel,
    image: Tensor,
    others: Callable[[], Iterable[Tensor]],
    most: int = 4,
    progress: Tick = silent,
) -> dict[int, list[list[Near]]]:
    """Block -> of each of its prompts the patches nearest to it, the nearest first, of every image its nearest alone.

    Memory holds the keys of one image at a time, so the others are asked for twice.

    Args:
        image: normalised (1, 3, H, W), on which prompts that depend on the image are read.
        others: give normalised images (1, 3, H, W), the same and in the same order whenever asked; at least one.
        most: patches for each prompt.
        progress: of both rounds.

    Raises:
        VptError: prompts that no block attends to beside its tokens, see `require_readable`.
    """
    prompts = {i: each.prompts for i, each in keys_of(model, image)}
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    total = 0
    for total, other in enumerate(others(), start=1):
        for i, each in keys_of(model, other):
            sums[i] = sums.get(i, 0) + each.patches.double().sum((0, 1))
            counts[i] = counts.get(i, 0) + each.patches[..., 0].numel()
        progress(total, 2 * total, "")
    means = {i: (summed / counts[i]).float() for i, summed in sums.items()}
    asked = {i: F.normalize(keys - means[i], dim=-1) for i, keys in prompts.items()}
    found: dict[int, list[list[Near]]] = {i: [[] for _ in keys] for i, keys in prompts.items()}
    for number, other in enumerate(others()):
        for i, each in keys_of(model, other):
            near = F.normalize(each.patches - means[i], dim=-1) @ asked[i].T
            rows, columns = near.shape[:2]
            best, places = near.flatten(0, 1).max(0)
            for k, (cosine, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
                found[i][k].append(Near(number, place // columns, place % columns, rows, columns, cosine))
        progress(total + number + 1, 2 * total, "")
    return {i: [sorted(near, key=lambda one: -one.cosine)[:most] for near in each] for i, each in found.items()}


@torch.no_grad()
def keys_of(model: PromptedModel, image: Tensor) -> Iterator[tuple[int, BlockKeys]]:
    """Of a normalised image (1, 3, H, W): the number of every block with prompts, and the keys that it makes."""
    for i, tokens, _, beside in beside_tokens(model, image):
        patches = model.backbone.project(i, tokens.grid.flatten(1, 2))
        yield i, BlockKeys(_of_all_heads(beside), _of_all_heads(patches).unflatten(0, tokens.grid.shape[1:3]))


def _of_all_heads(found: KeysValues) -> Tensor:
    """(1, heads, N, d) or (heads, N, d) -> (N, heads * d)."""
    heads, count, depth = found.keys.shape[-3:]
    return found.keys.reshape(heads, count, depth).transpose(0, 1).flatten(1).float()

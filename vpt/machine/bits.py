"""What tells whether tensors still hold what they held."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes -> whole numbers of so many
LONGEST = 8
ROW = 4096

Content = tuple[torch.dtype, int]


@torch.no_grad()
def content_of(tensor: Tensor) -> Content:
    """Its type and a sum of its bits as whole numbers, each weighed by its place: equal on every device, another one if
    a number changes or changes places (but for chance, 1 in 2^64). Reads all once, some GB in a second.
    """
    flat = tensor.detach().reshape(-1).contiguous()
    flat = flat.clone() if flat.storage_offset() * flat.itemsize % LONGEST else flat
    words = flat.view(WORDS[LONGEST if flat.nbytes % LONGEST == 0 else flat.itemsize])
    whole = len(words) // ROW * ROW
    rows = _weighed(words[:whole].view(-1, ROW)) if whole else words[:0]
    return tensor.dtype, int(_weighed(torch.cat([rows.long(), words[whole:].long()])[None])[0])


def _weighed(rows: Tensor) -> Tensor:
    """Whole numbers (N, W) -> the sum (N,) of each row's, times odd numbers, so that no bit falls out."""
    rows, places = rows.long(), 2 * torch.arange(rows.shape[1], device=rows.device) + 1
    return torch.mv(rows, places) if rows.device.type == "cpu" else (rows * places).sum(1)


def contents(module: nn.Module) -> dict[str, Content]:
    """`content_of` each parameter that is in memory, by name."""
    return {name: content_of(each) for name, each in module.named_parameters() if not each.is_meta}

"""How a query is compared with learned keys, and how learned rows start, and are kept, at right angles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.errors import VptError
from vpt.prompts.base import Info

LEAST = 1e-12  # of a length that something is divided by


def query_in(info: Info) -> Tensor:
    """(B, C) float32, the frozen encoder's feature of each image; ValueError where whoever calls has not made it."""
    if info.query is None:
        raise ValueError("these prompts are chosen by the frozen encoder's feature of an image: give Info(query=...)")
    return info.query.float()


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries (B, C), keys (M, C) -> (B, M), in single precision also under autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return F.normalize(queries.float(), dim=-1) @ F.normalize(keys.float(), dim=-1).mT


def attended_cosines(queries: Tensor, attentions: Tensor, keys: Tensor) -> Tensor:
    """cos(q * A_m, K_m) of queries (B, C) and components (..., M, C) -> (..., B, M).

    The product of q, A and K is summed at once, so that no (B, M, C) is made. In single precision also under autocast.
    """
    with torch.autocast(queries.device.type, enabled=False):
        together = queries @ (attentions * keys).mT
        lengths = (queries.square() @ attentions.square().mT).sqrt() * keys.norm(dim=-1).unsqueeze(-2)
        return together / lengths.clamp_min(LEAST)


def orthonormal_rows(count: int, beside: Tensor) -> Tensor:
    """`count` random rows of length 1, at right angles to each other and to those of `beside` (N, D) -> (count, D).

    Raises:
        VptError: more rows than D, of which no more can be at right angles.
    """
    there, size = beside.shape
    if there + count > size:
        raise VptError(
            f"prompts: {there} components are learned and {count} are to be added, but of vectors of {size} numbers no "
            "more can be at right angles; start a new sequence of tasks with fewer components for each"
        )
    drawn = torch.randn(size, there + count, dtype=torch.float64, device=beside.device)
    drawn[:, :there] = beside.mT.double()
    return torch.linalg.qr(drawn).Q[:, there:].mT.to(beside.dtype).contiguous()


def oblique(rows: Tensor) -> Tensor:
    """Rows (..., N, D) -> the mean square of the entries of R R' - I: how far they are from right angles, length 1."""
    with torch.autocast(rows.device.type, enabled=False):
        return (rows @ rows.mT - torch.eye(rows.shape[-2], device=rows.device)).square().mean()

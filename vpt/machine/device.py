"""On which device a model runs."""

from __future__ import annotations

import torch

from vpt.errors import VptError


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        VptError: no such device here; a processor of which torch cannot find out what it is, as without `/proc`.
    """
    try:
        torch.empty(1).half()  # what weights are kept in; torch asks for the processor's kind before it converts
    except RuntimeError as error:
        raise VptError(
            f"torch cannot convert numbers here ({error}), as where /proc is hidden or not mounted; mount it "
            "(mount -t proc proc /proc), or start outside of that sandbox"
        ) from error
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # which `meta` has nowhere to take from
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # pages follow, of backends that torch might have had
        raise VptError(f"device {name}: not available here ({reason}); choose auto or cpu") from error
    return device

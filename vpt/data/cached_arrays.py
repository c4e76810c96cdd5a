"""Arrays that were prepared once and lie in a cache: memory-mapped, and refused where they are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.errors import VptError


def mapped(path: Path, kinds: str = "fiu", axes: int | None = None) -> np.ndarray:
    """The array of a `.npy`; kinds: NumPy's letters of what it may hold (`f`, `iu`); axes: how many it has, if known.

    Raises:
        VptError: it is not whole, or another one. Values are not looked at.
    """
    try:
        found: np.ndarray = np.load(path, mmap_mode="r")
    except MemoryError:
        raise
    except Exception as error:  # a header is read as Python, which fails in many ways
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in kinds or axes not in (None, found.ndim):
        raise damaged(path, "it holds something else")
    return found


def damaged(path: Path, why: str) -> VptError:
    return VptError(f"{path}: damaged ({why}); remove {path.parent}, and it is prepared anew")

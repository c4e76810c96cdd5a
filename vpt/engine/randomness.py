"""All generators that a training may draw from, as tensors: torch's, NumPy's and Python's own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from importlib import import_module

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Start all of them from one seed, so that what an extension draws from any of them is the same in every run.

    rich draws from Python's own when it is first imported, be it by Lightning, so it is imported before.
    """
    import_module("rich.style")
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def torch_state() -> dict[str, Tensor]:
    """The state of torch's generators, of the CPU and of this process's GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def random_state() -> dict[str, Tensor]:
    """The state of all generators, for a file."""
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, next_gauss = random.getstate()
    drawn = [] if next_gauss is None else [next_gauss]
    return {
        **torch_state(),
        "numpy": torch.tensor([*np.asarray(keys).tolist(), place, has_gauss]),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor(drawn, dtype=torch.float64),
    }


def restore_random(state: Mapping[str, Tensor]) -> None:
    """Bring the generators to where they were; those that the state does not hold are left alone."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "numpy" in state:
        *keys, place, has_gauss = state["numpy"].tolist()
        np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, float(state["numpy_gauss"])))
    if "python" in state:
        version, *words = state["python"].tolist()
        random.setstate((version, tuple(words), next(iter(state["python_gauss"].tolist()), None)))

"""Controls that learn classes from the frozen encoder's features alone, with sums and no gradient.

Whatever the order of tasks and cases, they come to the same; of the cases nothing is kept but these sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RIDGES = tuple(10.0**power for power in range(-4, 9))
HELD = 5  # one of so many cases of a task chooses the ridge


class NearestMean:
    """The class whose mean feature has the largest cosine with the case's (nearest class mean)."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.sums)

    def learn(self, features: np.ndarray, labels: Sequence[str]) -> None:
        """Features (N, C) of cases with these classes."""
        own = np.asarray(labels)
        for name in dict.fromkeys(labels):
            found = features[own == name].astype(np.float64)
            self.sums[name] = self.sums.get(name, np.zeros(features.shape[1])) + found.sum(0)
            self.counts[name] = self.counts.get(name, 0) + len(found)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, C) -> (N, K), of `classes`. Each class by itself, so another one more changes no bit of it."""
        directions = _normalised(features.astype(np.float64))
        means = [_normalised(self.sums[name] / self.counts[name]) for name in self.classes]
        return np.stack([(directions * mean).sum(1) for mean in means], 1)


class RanPac:
    """Ridge regression of the classes on randomly projected features: the second phase of RanPAC.

    McDonnell et al., NeurIPS 2023: h = relu(f W), W (C, M) drawn once; G += h'h, Y += h'y with every task; scores
    h (G + l I)^-1 Y. The ridge l is that of `RIDGES` whose scores of a fifth of the task's training cases are nearest
    to 0 and 1, learned from the others.

    Args:
        width: C; projection: M, 10,000 as published; seed: of W and of who chooses l.
    """

    def __init__(self, width: int, projection: int = 10_000, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.weight = self.rng.standard_normal((width, projection))
        self.products = np.zeros((projection, projection))
        self.sums = np.zeros((projection, 0))
        self.classes: tuple[str, ...] = ()
        self.ridge = RIDGES[0]
        self.solved = np.zeros((projection, 0))

    def learn(self, features: np.ndarray, labels: Sequence[str]) -> None:
        """Features (N, C) of cases with these classes."""
        new = [name for name in dict.fromkeys(labels) if name not in self.classes]
        self.classes = (*self.classes, *new)
        self.sums = np.pad(self.sums, ((0, 0), (0, len(new))))
        hidden, truth = self._hidden(features), self._truth(labels)
        held = np.zeros(len(hidden), bool)
        held[self.rng.permutation(len(hidden))[: len(hidden) // HELD]] = True
        if held.any():
            self.ridge = self._choose(hidden, truth, held)
        self.products += hidden.T @ hidden
        self.sums += hidden.T @ truth
        self.solved = _solved(self.products, self.sums, self.ridge)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, C) -> (N, K), of `classes`."""
        return self._hidden(features) @ self.solved

    def _choose(self, hidden: np.ndarray, truth: np.ndarray, held: np.ndarray) -> float:
        """The ridge with the least mean square error on the held cases."""
        products = self.products + hidden[~held].T @ hidden[~held]
        sums = self.sums + hidden[~held].T @ truth[~held]
        values, vectors = np.linalg.eigh(products)
        turned, asked = vectors.T @ sums, hidden[held] @ vectors

        def error(ridge: float) -> float:
            return float(np.square((asked / (np.maximum(values, 0) + ridge)) @ turned - truth[held]).mean())

        return min(RIDGES, key=error)

    def _hidden(self, features: np.ndarray) -> np.ndarray:
        return np.maximum(features.astype(np.float64) @ self.weight, 0)

    def _truth(self, labels: Sequence[str]) -> np.ndarray:
        """(N, K) of 0 and 1."""
        return (np.asarray(labels)[:, None] == np.asarray(self.classes)[None]).astype(np.float64)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _solved(products: np.ndarray, sums: np.ndarray, ridge: float) -> np.ndarray:
    """(G + l I)^-1 Y."""
    from scipy.linalg import solve

    found: np.ndarray = solve(products + ridge * np.eye(len(products)), sums, assume_a="pos")
    return found

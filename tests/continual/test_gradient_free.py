"""Nearest class mean and RanPAC against plain re-computations; whatever the order, they come to the same."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.continual.gradient_free import HELD, RIDGES, NearestMean, RanPac

RNG = np.random.default_rng(0)
CENTRES = 2 * RNG.standard_normal((6, 12))


def cases(classes: list[int], each: int = 20, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    labels = np.repeat(classes, each)
    noise = np.random.default_rng((seed, *classes)).standard_normal((len(labels), 12))
    return (CENTRES[labels] + noise).astype(np.float32), [str(k) for k in labels]


TASKS = [cases([0, 1]), cases([2, 3]), cases([4, 5])]


def test_the_mean_with_the_largest_cosine_is_nearest() -> None:
    found, features = NearestMean(), cases([0, 3, 5], each=4, seed=2)[0]
    for task in TASKS:
        found.learn(*task)
    together, labels = np.concatenate([task[0] for task in TASKS]), [name for task in TASKS for name in task[1]]
    for k, name in enumerate(found.classes):
        mean = together[np.array(labels) == name].mean(0)
        expected = features @ mean / np.linalg.norm(features, axis=1) / np.linalg.norm(mean)
        np.testing.assert_allclose(found.scores(features)[:, k], expected, rtol=1e-5)


def test_of_the_nearest_mean_another_task_changes_no_bit_and_a_class_may_come_again() -> None:
    found, features = NearestMean(), cases([0, 1], seed=3)[0]
    found.learn(*TASKS[0])
    before = found.scores(features)
    found.learn(*TASKS[1])
    assert np.array_equal(found.scores(features)[:, :2], before)
    found.learn(*cases([0], seed=4))
    assert found.classes == ("0", "1", "2", "3")
    assert found.counts["0"] == 40


def test_ranpac_after_all_tasks_is_ridge_regression_on_all_cases_in_any_order() -> None:
    features = cases([0, 1, 2, 3, 4, 5], each=3, seed=2)[0]
    scores = []
    for order in ([0, 1, 2], [2, 0, 1]):
        found = RanPac(12, projection=50, seed=0)
        for number in order:
            found.learn(*TASKS[number])
        names = [name for number in order for name in TASKS[number][1]]
        hidden = np.maximum(np.concatenate([TASKS[number][0] for number in order]).astype(float) @ found.weight, 0)
        truth = np.array([[name == known for known in found.classes] for name in names], float)
        inverse = np.linalg.inv(hidden.T @ hidden + found.ridge * np.eye(50))
        expected = np.maximum(features.astype(float) @ found.weight, 0) @ inverse @ hidden.T @ truth
        np.testing.assert_allclose(found.scores(features), expected, atol=1e-6)
        found.ridge = 1.0  # the ridge is chosen with the last task; the sums do not depend on the order
        columns = [found.classes.index(str(k)) for k in range(6)]
        scores.append((found.products, found.sums[:, columns]))
    for a, b in zip(*scores, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_the_ridge_is_that_with_the_least_error_on_a_held_fifth() -> None:
    found = RanPac(12, projection=30, seed=5)
    features, labels = cases([0, 1, 2], each=10, seed=6)
    features = features + 4 * np.random.default_rng(7).standard_normal(features.shape).astype(np.float32)
    found.learn(features, labels)
    rng = np.random.default_rng(5)
    rng.standard_normal((12, 30))
    held = np.zeros(30, bool)
    held[rng.permutation(30)[: 30 // HELD]] = True
    hidden = np.maximum(features.astype(float) @ found.weight, 0)
    truth = np.array([[name == known for known in ("0", "1", "2")] for name in labels], float)
    errors = []
    for ridge in RIDGES:
        inverse = np.linalg.inv(hidden[~held].T @ hidden[~held] + ridge * np.eye(30))
        errors.append(np.square(hidden[held] @ inverse @ hidden[~held].T @ truth[~held] - truth[held]).mean())
    assert found.ridge == RIDGES[int(np.argmin(errors))]
    assert RIDGES[0] < found.ridge < RIDGES[-1]


@pytest.mark.parametrize("control", [NearestMean(), RanPac(12, projection=200)])
def test_they_tell_classes_apart(control: NearestMean | RanPac) -> None:
    for task in TASKS:
        control.learn(*task)
    features, labels = cases([0, 1, 2, 3, 4, 5], each=10, seed=9)
    answers = np.array(control.classes)[control.scores(features).argmax(1)]
    assert (answers == labels).mean() > 0.9

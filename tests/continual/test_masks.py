"""Organs in turn on tiny images: every method, its matrix of Dice, whose task was chosen, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from organs_in_turn import STEP, write_organ

from vpt.continual import Protocol, run_protocol
from vpt.errors import VptError
from vpt.files import read_json
from vpt.scores.continual import mask_score


def test_a_case_counts_with_what_is_there_or_found() -> None:
    there, half, nothing = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool), np.zeros(4, bool)
    assert mask_score({"liver": half}, {"liver": there}) == pytest.approx(2 / 3)
    assert mask_score({"liver": half, "lung": nothing}, {"liver": there}) == pytest.approx(2 / 3)
    assert mask_score({"lung": there}, {"liver": there}) == 0
    assert mask_score({"lung": there, "liver": there}, {"liver": there}) == 0.5
    assert mask_score({"liver": nothing}, {"liver": nothing}) == 1
    assert mask_score({"lung": half}, {"liver": nothing}) == 0


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("organs")
    return write_organ(root / "discs", "disc"), write_organ(root / "squares", "square", value=255)


def test_methods_and_sets_that_do_not_fit_are_refused(organs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(VptError, match="ranpac: not for tasks that segment; expected some of own, sequential, head"):
        run_protocol(Protocol(data=organs, methods=("ranpac",)), tmp_path)
    with pytest.raises(VptError, match="one task; give two data sets with masks at least"):
        run_protocol(Protocol(data=organs[:1]), tmp_path)


@pytest.mark.slow
def test_tasks_of_their_own_forget_nothing(organs: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {key: value for key, value in STEP.items() if key != "prompts"} | {"train.max_steps": 20}
    wanted = Protocol(data=organs, shuffle=False, settings=settings, prompts={"own": {"blocks": "last:2"}})
    own, sequential, head = run_protocol(wanted, tmp_path)
    for each in (own, sequential, head):
        order = each.orders[0]
        assert order.tasks == ("discs", "squares")
        assert [len(row) for row in order.matrix or ()] == [1, 2]
        assert len(order.right) == len(order.told) == len(order.chosen or ()) == 4
        assert each.chosen == 1
        assert order.told == order.right
    before, after = own.orders[0].matrix or ()
    assert after[0] == before[0] > 0.5, "what is chosen rightly is answered as ever"
    assert sequential.orders[0].matrix is not None
    assert sequential.orders[0].matrix[1][0] != before[0], "the prompts have moved under the old head"
    page = (tmp_path / "continual.html").read_text()
    for said in ("Dice on all tasks so far", "task chosen rightly", "prompts and head of its own"):
        assert said in page
    written = read_json(tmp_path / "continual.json")["methods"]
    assert [each["chosen_rightly"] for each in written] == [1, 1, 1]
    again = run_protocol(wanted.model_copy(update={"methods": ("own",)}), tmp_path)
    assert again[0].orders == own.orders

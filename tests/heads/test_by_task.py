"""A head that gets rows with every task: new ones train, old ones answer bit for bit as they did."""

from __future__ import annotations

import pytest
import torch
from encoders import WIDTH, make_vit

from vpt.errors import VptError
from vpt.heads import Answer, ClassifyHead
from vpt.heads.by_task import ByTaskConfig, ByTaskHead
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.classification import class_loss, within

SPEC = make_vit().spec
LEARNED = {"pets": ("cat", "dog"), "farm": ("cow", "hen", "pig")}


def make(learned: dict[str, tuple[str, ...]]) -> ByTaskHead:
    torch.manual_seed(0)
    return ByTaskHead(SPEC, learned=learned)


@pytest.fixture
def first() -> ClassifyHead:
    torch.manual_seed(1)
    return ClassifyHead(SPEC, outputs=2).eval()


def test_rows_of_earlier_tasks_stay_bit_for_bit_after_five(first: ClassifyHead) -> None:
    pooled, learned, head = torch.randn(4, 1, WIDTH), {"pets": ("cat", "dog")}, first
    for number in range(4):
        learned[f"task {number}"] = (f"a{number}", f"b{number}")
        grown = make(learned)
        grown.continue_from(head)
        torch.nn.init.normal_(grown.output.weight)
        head = grown.eval()
    assert torch.equal(head.classify(pooled)[:, :2], first.classify(pooled))
    assert torch.equal(head.answer_of(torch.zeros(4, dtype=torch.int64), pooled)[:, :2], first.classify(pooled))  # type: ignore[operator]
    assert {name for name, _ in head.named_parameters()} == {"output.weight", "output.bias"}


def test_training_sees_the_last_task_alone(first: ClassifyHead) -> None:
    head, pooled = make(LEARNED).train(), torch.randn(4, 1, WIDTH)
    head.continue_from(first)
    logits, truth = head.classify(pooled), torch.eye(5)[[2, 3, 4, 2]]
    assert list(head.columns) == [2, 3, 4]
    assert torch.equal(logits[:, :2], torch.zeros(4, 2))
    torch.testing.assert_close(logits[:, 2:], head.output(pooled[:, 0]))
    local = within(head.columns, class_loss("classes"))(Output(logits), Batch(truth=truth))
    expected = torch.nn.functional.cross_entropy(head.output(pooled[:, 0]), torch.tensor([0, 1, 2, 0]))
    assert float(local.detach()) == pytest.approx(float(expected.detach()))


def test_a_class_of_several_tasks_has_the_sum_of_their_probabilities(first: ClassifyHead) -> None:
    head, pooled = make({"pets": ("cat", "dog"), "site b": ("dog", "fox")}).eval(), torch.randn(3, 1, WIDTH)
    head.continue_from(first)
    old, new = first.classify(pooled), head.output(pooled[:, 0])
    rows = torch.cat([old, new], 1).softmax(1)  # cat, dog there, dog here, fox
    expected = torch.stack([rows[:, 0], rows[:, 1] + rows[:, 2], rows[:, 3]], 1)
    torch.testing.assert_close(head.classify(pooled).softmax(1), expected)


def test_a_known_task_is_answered_among_its_own_classes(first: ClassifyHead) -> None:
    head, pooled = make(LEARNED).eval(), torch.randn(3, 1, WIDTH)
    head.continue_from(first)
    found = head.answer_of(torch.tensor([1, 0, 1]), pooled)
    torch.testing.assert_close(found[1, :2], first.classify(pooled)[1])
    torch.testing.assert_close(found[2, 2:], head.output(pooled[2, 0]))
    assert found.isinf().tolist() == [[True] * 2 + [False] * 3, [False] * 2 + [True] * 3, [True] * 2 + [False] * 3]
    with pytest.raises(VptError, match=r"task \[0, 2, 0\], but it has learned the tasks 0 to 1"):
        head.answer_of(torch.tensor([0, 2, 0]), pooled)


def test_its_settings_hold_the_tasks_and_fit_no_other_answer() -> None:
    config = ByTaskConfig(learned=LEARNED).further("site b", ("dog", "fox"))
    assert config.classes == ("cat", "dog", "cow", "hen", "pig", "fox")
    backbone = make_vit()
    assert config.build(backbone, Answer(6)).columns == [1, 5]
    with pytest.raises(VptError, match="learned 0 tasks of 0 classes in all, asked to answer 3 classes"):
        ByTaskConfig().build(backbone, Answer(3))

"""DualPrompt: prompts of all tasks and of each, trained knowing the task; what was learned answers bit for bit on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, WIDTH, draw, flat, make_vit, shaken, total

from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import DualpromptPrompts
from vpt.prompts.base import Info
from vpt.prompts.dualprompt import DualpromptConfig

SETTINGS: dict[str, Any] = {"general_length": 2, "general_blocks": (0,), "length": 4, "blocks": (1, 3)}


def make(learned: int = 1, **more: Any) -> DualpromptPrompts:
    torch.manual_seed(learned)
    return DualpromptPrompts(make_vit().spec, **SETTINGS, learned=learned, **more)


def sequence(count: int, **more: Any) -> list[DualpromptPrompts]:
    """After the first task, the second, ...; each is shaken, as training would."""
    found = [shaken(make(**more))]
    for learned in range(2, count + 1):
        prompts = make(learned, **more)
        prompts.continue_from(found[-1])
        found.append(shaken(prompts))
    return found


def test_general_prompts_are_in_some_blocks_and_those_of_the_task_in_others() -> None:
    first, second = sequence(2)
    tokens, second = make_vit().embed(draw(2)), second.eval()
    state = second.begin(None, Info(query=torch.randn(2, WIDTH), task=torch.tensor([1, 0])))
    contexts = [second.enter(i, tokens, state)[1] for i in range(DEPTH)]
    assert [context is None for context in contexts] == [False, False, True, False]
    general, expert = contexts[0], contexts[3]
    assert general is not None
    assert expert is not None
    torch.testing.assert_close(general.keys[1].transpose(0, 1).flatten(1), first.general[0, :1])
    for image, rows in enumerate((second.expert[1], first.expert[1])):
        torch.testing.assert_close(expert.keys[image].transpose(0, 1).flatten(1), rows[:2])
        torch.testing.assert_close(expert.values[image].transpose(0, 1).flatten(1), rows[2:])
    assert total(first) == 2 * WIDTH + 2 * 4 * WIDTH + WIDTH
    assert total(second) == total(first) - 2 * WIDTH


def test_training_takes_the_newest_task_and_pulls_its_key_else_the_nearest_key_chooses() -> None:
    *_, third = sequence(3, pull=0.7)
    query = torch.randn(5, WIDTH)
    state = third.train().begin(None, Info(query=query, task=torch.zeros(5, dtype=torch.int64)))
    assert state.task.tolist() == [2] * 5
    expected = 0.7 * (1 - F.cosine_similarity(query, third.key[None], dim=-1)).mean()
    assert third.penalty(state).item() == pytest.approx(expected.item(), rel=1e-5)
    keys = torch.cat([third.past_keys, third.key[None]])
    nearest = F.cosine_similarity(query[:, None], keys[None], dim=-1).argmax(1)
    assert torch.equal(third.eval().begin(None, Info(query=query)).task, nearest)


def test_told_the_task_it_gives_after_five_tasks_bit_for_bit_what_it_gave_after_the_first() -> None:
    backbone, images, prompts = make_vit(), draw(4), [each.eval() for each in sequence(5)]
    told = Info(task=torch.zeros(4, dtype=torch.int64))
    with torch.no_grad():
        first, last = (flat(encode(backbone, each, images, told)) for each in (prompts[0], prompts[4]))
        another = flat(encode(backbone, prompts[4], images, Info(task=torch.full((4,), 3))))
    assert torch.equal(first, last)
    assert not torch.equal(first, another)


def test_general_prompts_that_always_train_are_parameters_of_every_task() -> None:
    first, second = sequence(2, general="always")
    assert total(second) == total(first)
    assert not torch.equal(first.general, second.general)


def test_images_do_not_matter_to_each_other() -> None:
    backbone, images, prompts = make_vit(), draw(5), sequence(3)[-1].eval()
    with torch.no_grad():
        prompts.key.neg_()  # far from the keys before, so that no rounding chooses
        together = flat(encode(backbone, prompts, images))
        alone = torch.cat([flat(encode(backbone, prompts, image[None])) for image in images])
    assert (together - alone).abs().max() < 2e-5


def test_unknown_tasks_and_blocks_of_both_are_refused() -> None:
    with pytest.raises(VptError, match=r"task \[3\], but these know the tasks 0 to 1"):
        sequence(2)[1].eval().begin(None, Info(query=torch.randn(1, WIDTH), task=torch.tensor([3])))
    with pytest.raises(VptError, match="block 1 is among blocks and general_blocks"):
        DualpromptPrompts(make_vit().spec, general_blocks=(0, 1), blocks=(1, 2))
    assert DualpromptConfig().further().learned == 2

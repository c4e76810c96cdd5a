"""Prompts and heads of others in models of one's own loop: what they give is held to shapes, types and `first`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoders import DEPTH, WIDTH, draw, make_vit
from torch import Tensor, nn

import vpt
from vpt.backbones.tokens import KeysValues, SeparateContext, Tokens
from vpt.errors import VptError
from vpt.heads.base import Head
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts
from vpt.streams import Part, encode_together

ROWS = torch.zeros(4, WIDTH)


class Given(Prompts):
    """Whose context, or what enters, is what a test gives."""

    def __init__(self, context: Any = None, enter: Callable[[Tokens], Any] | None = None, first: Any = 0):
        super().__init__()
        self.given, self.entering, self.beginning = context, enter, first
        self.scale = nn.Parameter(torch.ones(()))

    def first(self, depth: int) -> Any:
        return self.beginning

    def context(self, i: int, batch: int) -> Any:
        return self.given

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        return super().enter(i, tokens, state) if self.entering is None else self.entering(tokens)


class Costly(Given):
    def __init__(self, cost: Any):
        super().__init__()
        self.cost = cost

    def penalty(self, state: Any) -> Any:
        return self.cost


class Answers(Head):
    """Gives what a test makes of logits (B, 3)."""

    def __init__(self, made: Callable[[Tensor], Any]):
        super().__init__()
        self.output, self.made = nn.Linear(WIDTH, 3), made

    def forward(self, features: Any, images: Tensor, hints: Tensor | None = None) -> Any:
        return self.made(self.output(features.prefix[:, 0]))


def answer(prompts: Any, head: Any = None) -> Tensor:
    model = PromptedModel(make_vit(), prompts, Answers(lambda logits: logits) if head is None else head)
    return model(draw(2))


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (
            ROWS[:, :16],
            r"^prompts .*\.Given: its context for block 0 is a tensor \(4, 16\), expected a tensor \(P, 32\)",
        ),
        (ROWS[0], r"its context for block 0 is a tensor \(32\), expected"),
        (ROWS.expand(3, -1, -1), r"is a tensor \(3, 4, 32\), expected a tensor \(P, 32\), or \(B, P, 32\) with B=2"),
        (SeparateContext(ROWS[0]), r"its context for block 0 is a tensor \(32\), expected"),
        (ROWS.double(), r"is of torch\.float64, expected torch\.float32, in which the model computes; convert it"),
        (
            ROWS.long(),
            r"is of torch\.int64, expected torch\.float32, in which the model computes; leave out what rounds",
        ),
        (ROWS.half(), r"is of torch\.float16, expected torch\.float32"),
        (ROWS.to("meta"), r"is on meta, and the model is on cpu; keep it in a parameter or a buffer"),
        (ROWS.numpy(), r"its context for block 0 is a ndarray, expected a tensor"),  # was left out without a word
        ([ROWS], r"its context for block 0 is a list, expected a tensor"),
    ],
)
def test_a_context_that_no_block_can_attend_to_is_named(context: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        answer(Given(context))


@pytest.mark.parametrize("context", [None, ROWS, ROWS.expand(1, -1, -1), ROWS.expand(2, -1, -1), SeparateContext(ROWS)])
def test_contexts_of_every_form_are_taken(context: Any) -> None:
    assert answer(Given(context)).shape == (2, 3)


def test_a_context_of_half_precision_is_taken_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert answer(Given(ROWS.bfloat16())).shape == (2, 3)
        with pytest.raises(VptError, match=r"is of torch\.float64"):
            answer(Given(ROWS.double()))


def test_keys_and_values_of_prompts_are_taken() -> None:
    backbone = make_vit()
    context = backbone.project(0, ROWS)
    assert isinstance(context, KeysValues)
    assert PromptedModel(backbone, Given(context), Answers(lambda logits: logits))(draw(2)).shape == (2, 3)


@pytest.mark.parametrize(
    ("enter", "said"),
    [
        (lambda tokens: tokens, r"^prompts .*\.Given: enter\(0\) gives a Tokens, expected two things: the Tokens that"),
        (lambda tokens: None, r"enter\(0\) gives None, expected two things"),
        (lambda tokens: (ROWS, tokens), r"enter\(0\) gives a tuple of Tensor, Tokens, expected two things"),
        (
            lambda tokens: (replace(tokens, grid=tokens.grid.flatten(1, 2)), None),
            r"enter\(0\) gives as grid of the tokens a tensor \(2, 40, 32\), expected a tensor \(2, 8, 5, 32\)",
        ),
        (
            lambda tokens: (replace(tokens, prompts=ROWS), None),
            r"gives as prompts of the tokens a tensor \(4, 32\), expected a tensor \(2, P, 32\)",
        ),
        (lambda tokens: (replace(tokens, prefix=None), None), r"gives as prefix of the tokens None, expected a tensor"),
        (lambda tokens: (replace(tokens, grid=tokens.grid.double()), None), r"as grid of the tokens of torch\.float64"),
    ],
)
def test_tokens_that_no_block_can_take_are_named(enter: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        answer(Given(enter=enter))


@pytest.mark.parametrize("first", [DEPTH + 1, -1, 2.0, None, True])
def test_a_first_that_is_no_block_is_named(first: Any) -> None:
    model = PromptedModel(make_vit(), Given(first=first), Answers(lambda logits: logits))
    with pytest.raises(VptError, match=rf"Given: first\(4\) gives {first}, expected the number of .* 0 to 3, or 4 for"):
        model.first_trained_block()


@pytest.mark.parametrize("first", [1, DEPTH])
def test_prompts_below_the_first_block_are_named(first: int) -> None:
    with pytest.raises(
        VptError, match=rf"Given: first\(4\) says {first}, but it gives block 0 a context; give the fir"
    ):
        answer(Given(ROWS, first=first))
    assert answer(Given(ROWS, first=0)).shape == (2, 3)


def test_streams_of_several_tasks_look_at_the_same() -> None:
    model = PromptedModel(make_vit(), Given(ROWS[0]), Answers(lambda logits: logits)).eval()
    with pytest.raises(VptError, match=r"its context for block 0 is a tensor \(32\)"):
        encode_together(model.backbone, draw(2), [Part(model, range(2))])


def test_a_wrapped_model_looks_at_the_same() -> None:
    vit = timm.create_model("test_vit", num_classes=2, img_size=32)
    wrapped = vpt.wrap(vit, Given(torch.zeros(4, 7)))
    with pytest.raises(VptError, match=r"its context for block 0 is a tensor \(4, 7\), expected a tensor \(P, 64\)"):
        wrapped(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("cost", [torch.zeros(4), "nothing", (torch.zeros(()),)])
def test_a_penalty_that_is_no_number_is_named(cost: Any) -> None:
    with pytest.raises(VptError, match=r"^prompts .*\.Costly: penalty gives a .*, expected one number as a tensor, or"):
        answer(Costly(cost))
    assert answer(Costly(torch.zeros(()))).shape == (2, 3)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda logits: None,
            r"^head .*\.Answers: forward gives None, expected logits for each of the 2 images, \(B, K",
        ),
        (lambda logits: logits.detach().numpy(), r"forward gives a ndarray, expected"),
        (lambda logits: (logits, logits), r"forward gives a tuple of Tensor, Tensor, expected"),
        (
            lambda logits: logits.mean(0, keepdim=True),
            r"forward gives a tensor \(1, 3\), expected logits for each of the 2",
        ),
        (lambda logits: logits.argmax(1), r"forward gives a tensor \(2\), expected"),
        (lambda logits: logits.round().long(), r"forward gives logits of torch\.int64, .*; leave out what rounds"),
    ],
)
def test_an_answer_that_is_no_logits_is_named(made: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        answer(Given(), Answers(made))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_of_any_precision_are_taken(dtype: torch.dtype) -> None:
    assert answer(Given(), Answers(lambda logits: logits.to(dtype))).dtype == dtype


class Unready(Prompts):
    def __init__(self) -> None:
        self.number = 3


class NoHead(nn.Module):
    levels = ()


@pytest.mark.parametrize(
    ("prompts", "head", "said"),
    [
        (
            None,
            None,
            r"^prompts: None, expected an instance of a class that derives from vpt\.prompts\.base\.Prompts; see",
        ),
        (DeepPrompts, None, r"^prompts: the class DeepPrompts, expected an instance"),
        (np.zeros(3), None, r"^prompts: a ndarray, expected an instance"),
        (Unready(), None, r"Unready: its __init__ does not call super\(\)\.__init__\(\), which has to come first$"),
        (
            Given(),
            NoHead(),
            r"^head: a NoHead, expected an instance of a class that derives from vpt\.heads\.base\.Head",
        ),
    ],
)
def test_what_is_no_part_of_a_model_is_named(prompts: Any, head: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        answer(prompts, head)
    with pytest.raises(VptError, match=r"^backbone: a VisionTransformer, expected an instance of a class that derives"):
        PromptedModel(timm.create_model("test_vit"), Given(), Answers(lambda logits: logits))  # type: ignore[arg-type]


class Shifting(DeepPrompts):
    """Deep prompts that are `constant` by what they derive from, with an `enter` that is not."""

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        tokens, context = super().enter(i, tokens, state)
        return replace(tokens, grid=tokens.grid + torch.linspace(-1, 1, WIDTH)), context


def test_prompts_with_an_enter_of_their_own_act_in_inference_too() -> None:
    backbone = make_vit()
    model = PromptedModel(backbone, Shifting(backbone.spec, count=2), Answers(lambda logits: logits)).eval()
    before = model(draw(2))
    assert torch.equal(model.project_prompts()(draw(2)), before)


class Repeated(Given):
    """A context for each image, of however many there are."""

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        return tokens, ROWS.expand(tokens.grid.shape[0], -1, -1)


@pytest.mark.slow
def test_models_with_parts_of_others_can_be_exported_and_compiled_for_batches_of_any_size() -> None:
    model = PromptedModel(make_vit(), Repeated(), Answers(lambda logits: logits)).eval()
    images, batch = draw(2), torch.export.Dim("batch", min=2, max=16)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},)).module()
    assert torch.allclose(exported(draw(5)), model(draw(5)), atol=1e-5)
    compiled = torch.compile(model, backend="eager", dynamic=True, fullgraph=True)
    assert torch.allclose(compiled(draw(5)), model(draw(5)), atol=1e-5)

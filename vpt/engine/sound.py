"""Prompts and heads of another package, tried on two images before hours are trained: do they do what they say?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from vpt.contract import called, wrong_first
from vpt.errors import VptError
from vpt.foreign import blaming
from vpt.model import Output, PromptedModel
from vpt.sections import is_own
from vpt.tasks.batch import Batch
from vpt.tasks.frozen import FrozenPrefix, OverPrefix

ROUNDING = 1e-4  # of answers, as a part of the largest
IN_BATCHES = 5e-3  # the same of batches of other sizes, which a GPU may compute in another way
DRAWS = 16  # of parameters, after which answers that never leave [0, 1] are taken for probabilities
SEED = 0


@dataclass(frozen=True)
class Asked:
    """The shapes of an image as the data give it, (C, S, S) or (slices, C, S, S), and of its logits, (K, S, S) or K."""

    image: tuple[int, ...]
    logits: tuple[int, ...]


def require_sound(
    model: PromptedModel,
    on_images: Callable[[], nn.Module],
    over_prefix: Callable[[FrozenPrefix], OverPrefix],
    asked: Asked,
) -> None:
    """Raise VptError where prompts or a head of another package fail, or do otherwise than they say.

    The methods of this package are tested for it. Looked at are the shape and kind of the logits, whether they can be
    learned from, `Prompts.first` and `Prompts.constant`, and whether an image is answered alike alone.

    on_images, over_prefix: make the forward of the whole model, and that on what its frozen prefix gave.
    """
    if not others(model):
        return
    _require_made(model)
    device = next(model.parameters()).device
    names = {name for name, _ in _own_tensors(model)}
    with blaming(model.prompts, model.head, doing="a pass of two images"), random_numbers(model):
        torch.manual_seed(SEED)
        images = torch.rand(2, *asked.image, device=device)
        images[1] /= 4  # so that the two differ in more than noise
        batch = Batch(images=images)
        if model.head.takes_hints:
            batch["hints"] = torch.full((2, 1, 3), -1.0, device=device)
        whole = on_images().to(device)
        found = _answer(whole, batch)
        _require_logits(model, found, asked.logits)
        found = _require_no_probabilities(model, whole, batch, found)
        _require_first(model, over_prefix, batch, found)
        _require_constant(model, whole, batch, found)
        _require_apart(model, whole, batch, found)
        _require_learning(model, whole, batch)
    if late := {name for name, _ in _own_tensors(model)} - names:
        raise _late(model, min(late), "is made in its first pass")


def others(model: PromptedModel) -> list[nn.Module]:
    """Those of prompts and head that are of another package."""
    return [part for part in (model.prompts, model.head) if not is_own(part)]


def in_words(parts: Sequence[nn.Module]) -> str:
    return " and ".join(map(called, parts))


@contextmanager
def random_numbers(model: PromptedModel) -> Iterator[None]:
    """What trains beside the encoder is moved at random for as long, since much starts at 0 and hides what is
    multiplied with it. After it all is as it was: parameters, buffers, the mode, the generator.
    """
    kept = {name: tensor.detach().clone() for name, tensor in _own_tensors(model)}
    device, was = next(model.parameters()).device, model.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            draw_numbers(model, SEED)
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _own_tensors(model):
                    if name in kept:
                        tensor.copy_(kept[name])
            model.train(was)


@torch.no_grad()
def draw_numbers(model: PromptedModel, seed: int) -> None:
    """Added to what is there: a deviation or a temperature that starts at 1 stays above 0."""
    torch.manual_seed(seed)
    for name, parameter in model.trained().items():
        if not name.startswith("backbone."):
            parameter.add_(torch.randn_like(parameter) / 10)


def _own_tensors(model: PromptedModel) -> list[tuple[str, Tensor]]:
    """All but those of the encoder, by name."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor) for name, tensor in tensors if not name.startswith("backbone.")]


@torch.no_grad()
def _answer(forward: nn.Module, batch: Batch) -> Tensor:
    torch.manual_seed(SEED)  # where a method draws in a pass, it draws the same
    output: Output = forward.eval()(batch)
    return output.logits


def _each(batch: Batch, made: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with `made` applied to each of its tensors."""
    return cast(Batch, {name: made(part) for name, part in cast("dict[str, Tensor]", batch).items()})


def _rounding(found: Tensor) -> float:
    """A GPU may choose other kernels for other shapes, and rounds factors of convolutions to 10 bits (TF32)."""
    return ROUNDING if found.device.type == "cpu" else IN_BATCHES


def _off(found: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest answer."""
    return float((found - other).abs().max() / found.abs().max().clamp(min=1e-12))


# --- what is asked ----------------------------------------------------------------------------------------------------


def _require_made(model: PromptedModel) -> None:
    for name, tensor in _own_tensors(model):
        if isinstance(tensor, UninitializedParameter):
            raise _late(model, name, "has no shape before its first pass")


def _late(model: PromptedModel, name: str, what: str) -> VptError:
    part = model.head if name.startswith("head.") else model.prompts
    return VptError(
        f"{called(part)}: {name} {what}; make it whole in __init__ (nn.Linear, not nn.LazyLinear), since what trains "
        "and what an artifact holds is known by then"
    )


def _require_logits(model: PromptedModel, found: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise VptError unless the logits are finite, and of the shape (B, *wanted)."""
    shape, expected = tuple(found.shape), (2, *wanted)
    if shape != expected:
        raise VptError(
            f"{called(model.head)}: gives logits {_of_batch(shape)}, expected {_of_batch(expected)}; "
            f"{_mended(shape[1:], wanted)}"
        )
    if not found.isfinite().all():
        empty = ", and `reads` is 'first', so that there is no grid" if model.head.reads == "first" else ""
        raise VptError(
            f"{in_words(others(model))}: the answers to two images are not finite{empty}; look for divisions by 0, "
            "logarithms and means of nothing"
        )


def _mended(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """How logits of one image get the wanted shape."""
    if len(shape) != len(wanted):
        return f"give one number for each class {'of every image' if len(wanted) == 1 else 'at every pixel'}"
    if len(wanted) > 1 and shape == (*wanted[1:], wanted[0]):
        return "put the classes before rows and columns, permute(0, 3, 1, 2)"
    if shape[0] == wanted[0]:
        return "resize them to the images, torch.nn.functional.interpolate"
    return f"let `answer` say how many outputs it has, here {wanted[0]}; of K grades there are K - 1, see count_outputs"


def _of_batch(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['B', *map(str, shape[1:])])})" if shape[:1] == (2,) else str(shape)


def _require_no_probabilities(model: PromptedModel, whole: nn.Module, batch: Batch, found: Tensor) -> Tensor:
    """The answers, where it takes them with other parameters; VptError where these never leave [0, 1]."""
    for seed in range(1, DRAWS + 1):
        if not 0 <= float(found.min()) < float(found.max()) <= 1:
            return found
        draw_numbers(model, SEED + seed)
        found = _answer(whole, batch)
    raise VptError(
        f"{called(model.head)}: whatever its parameters are, its answers lie between 0 and 1 as probabilities do; give "
        "logits, since losses and predictions apply softmax or sigmoid themselves"
    )


def _require_first(
    model: PromptedModel, over_prefix: Callable[[FrozenPrefix], OverPrefix], batch: Batch, found: Tensor
) -> None:
    """Raise VptError where the model answers otherwise from what its frozen prefix gave."""
    first, depth = model.first_trained_block(), model.backbone.spec.depth
    if not first:
        return
    turned = _each(batch, lambda part: part.flip(0))  # not in the order in which they were seen before
    above = over_prefix(FrozenPrefix(model, first)).to(batch["images"].device)
    turned["rows"] = above.eval().encode(turned["images"])
    if (off := _off(found.flip(0), _answer(above, turned))) <= _rounding(found):
        return
    what = f"from the stored tokens that enter block {first} the model answers otherwise (by {off:.2g} of the largest)"
    if is_own(model.prompts):
        raise VptError(f"{called(model.head)}: {what}; leave features and images as they are given, nothing in place")
    raise VptError(wrong_first(model.prompts, first, depth, what))


def _require_constant(model: PromptedModel, whole: nn.Module, batch: Batch, found: Tensor) -> None:
    """Raise VptError where the model answers otherwise with keys and values that were computed once."""
    torch.manual_seed(SEED)
    model.project_prompts()
    if (off := _off(found, _answer(whole, batch))) > _rounding(found):
        raise VptError(
            f"{called(model.prompts)}: `constant` says that every image has the same prompts, but with keys and values "
            f"computed once, as in inference, the model answers otherwise (by {off:.2g} of the largest); set it to "
            "False"
        )
    model.train()  # drops them


def _require_apart(model: PromptedModel, whole: nn.Module, batch: Batch, found: Tensor) -> None:
    """Raise VptError where an image is answered otherwise beside another one; where nothing is drawn in a pass."""
    first, second = _each(batch, lambda part: part[:1]), _each(batch, lambda part: part[1:])
    if (off := _off(found, torch.cat([_answer(whole, first), _answer(whole, second)]))) <= IN_BATCHES:
        return
    with torch.no_grad():
        torch.manual_seed(SEED + 1)
        drawn = _off(found, whole.eval()(batch).logits) > ROUNDING
    if not drawn:
        raise VptError(
            f"{in_words(others(model))}: in eval mode an image is answered otherwise alone than beside another one (by "
            f"{off:.2g} of the largest); let nothing depend on the rest of the batch, its first axis"
        )


def _require_learning(model: PromptedModel, whole: nn.Module, batch: Batch) -> None:
    torch.manual_seed(SEED)
    output: Output = whole.train()(batch)
    if not output.logits.requires_grad:
        raise VptError(
            f"{in_words(others(model))}: no gradient comes from the logits to what trains; leave out detach(), "
            "no_grad() and what rounds, and give something a parameter that trains"
        )

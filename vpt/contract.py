"""What prompts and heads of other packages give in a pass, held to what they promise, in a sentence instead of torch's.

Only shapes, types and devices are looked at, which takes microseconds; of the methods of this package nothing, nor
while a model is compiled or exported, since a batch that is looked at would be of one size for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Context, Features, KeysValues, SeparateContext, Tokens
from vpt.errors import VptError
from vpt.foreign import in_brackets, shown
from vpt.heads.base import Head
from vpt.prompts.base import Prompts
from vpt.sections import is_own
from vpt.words import counted

Enter = Callable[[int, Tokens, Any], tuple[Tokens, Context | None]]


KINDS: dict[str, type[nn.Module]] = {"prompts": Prompts, "head": Head, "backbone": Backbone}


def called(part: nn.Module) -> str:
    """ "prompts my_package.mirror.MirrorPrompts"."""
    what = next(name for name, kind in KINDS.items() if isinstance(part, kind))
    return f"{what} {type(part).__module__}.{type(part).__qualname__}"


def require_part(part: Any, kind: type[nn.Module]) -> None:
    """Raise VptError unless it is one of these, a `Backbone`, `Prompts` or a `Head`, which was initialised."""
    if not isinstance(part, kind):
        raise VptError(
            f"{kind.__name__.lower()}: {shown(part)}, expected an instance of a class that derives from "
            f"{kind.__module__}.{kind.__name__}; see docs/extending.md"
        )
    if "_parameters" not in vars(part):
        raise VptError(f"{called(part)}: its __init__ does not call super().__init__(), which has to come first")


def first_block(prompts: Prompts, depth: int) -> int:
    """Its `first`, from 0 to `depth`."""
    first = prompts.first(depth)
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= depth:
        raise VptError(
            f"{called(prompts)}: first({depth}) gives {first!r}, expected the number of the first block that it "
            f"changes, from 0 to {depth - 1}, or {depth} for none"
        )
    return first


def entering(prompts: Prompts, depth: int) -> Enter:
    """`prompts.enter`; of prompts of another package what that gives is looked at.

    depth: how many blocks the encoder has.
    """
    if _is_trusted(prompts):
        return prompts.enter
    first = first_block(prompts, depth)

    def enter(i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Context | None]:
        given = prompts.enter(i, tokens, state)
        if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Tokens)):
            raise VptError(
                f"{called(prompts)}: enter({i}) gives {shown(given)}, expected two things: the Tokens that enter the "
                "block, and its context or None"
            )
        entered, context = given
        if entered is not tokens:
            _require_tokens(prompts, i, tokens, entered)
        if context is not None:
            _require_context(prompts, i, tokens.grid, context)
            if i < first:
                raise VptError(wrong_first(prompts, first, depth, f"it gives block {i} a context"))
        return entered, context

    return enter


def wrong_first(prompts: Prompts, first: int, depth: int, found: str) -> str:
    return (
        f"{called(prompts)}: first({depth}) says {first}, but {found}; give the first block that it changes (0 is "
        "always right), since what lies below it is computed once and stored"
    )


def require_penalty(prompts: Prompts, penalty: Any) -> None:
    """Raise VptError unless it is one number or None."""
    if penalty is None or (isinstance(penalty, Tensor | int | float) and torch.as_tensor(penalty).numel() == 1):
        return
    raise VptError(f"{called(prompts)}: penalty gives {shown(penalty)}, expected one number as a tensor, or None")


def answering(head: Head) -> Callable[..., Any]:
    """The head; of one of another package it is looked at whether it gives logits of each of the images."""
    if _is_trusted(head):
        return head

    def answer(features: Features, images: Tensor, *hints: Tensor) -> Any:
        logits = head(features, images, *hints)
        _require_logits(head, logits, images)
        return logits

    return answer


def _require_logits(head: Head, logits: Any, images: Tensor) -> None:
    expected = f"logits for each of the {counted(len(images), 'image')}"
    if not isinstance(logits, Tensor) or logits.ndim < 2 or len(logits) != len(images):
        raise VptError(f"{called(head)}: forward gives {shown(logits)}, expected {expected}, (B, K) or (B, K, H, W)")
    _require_kind(f"{called(head)}: forward gives logits", logits, images, of_any_precision=True)


def _is_trusted(part: nn.Module) -> bool:
    return is_own(part) or torch.compiler.is_compiling()


def _require_tokens(prompts: Prompts, i: int, before: Tokens, entered: Tokens) -> None:
    """prefix and grid as they were; any number of prompts (B, P, C)."""
    batch, width = len(before.grid), before.grid.shape[-1]
    wanted: dict[str, tuple[Any, ...]] = {
        "grid": tuple(before.grid.shape),
        "prefix": tuple(before.prefix.shape),
        "prompts": (batch, "P", width),
    }
    for name, shape in wanted.items():
        part, said = getattr(entered, name), f"{called(prompts)}: enter({i}) gives as {name} of the tokens"
        if not isinstance(part, Tensor) or not _fits(part, shape):
            raise VptError(f"{said} {shown(part)}, expected a tensor {in_brackets(shape)}")
        _require_kind(said, part, before.grid)


def _require_context(prompts: Prompts, i: int, grid: Tensor, context: Any) -> None:
    batch, width = len(grid), grid.shape[-1]
    said = f"{called(prompts)}: its context for block {i} is"
    if isinstance(context, KeysValues):
        return
    rows = context.prompts if isinstance(context, SeparateContext) else context
    if not isinstance(rows, Tensor) or not (_fits(rows, ("P", width)) or _fits(rows, ({1, batch}, "P", width))):
        raise VptError(
            f"{said} {shown(rows)}, expected a tensor (P, {width}), or (B, P, {width}) with B={batch}, a "
            "SeparateContext of one, or None where the block has no prompts"
        )
    _require_kind(said, rows, grid)


def _fits(part: Tensor, shape: tuple[Any, ...]) -> bool:
    """Words stand for any number, sets for one of theirs."""
    return part.ndim == len(shape) and all(
        isinstance(wanted, str) or (size in wanted if isinstance(wanted, set) else size == wanted)
        for size, wanted in zip(part.shape, shape, strict=True)
    )


def _require_kind(said: str, part: Tensor, like: Tensor, *, of_any_precision: bool = False) -> None:
    """Raise VptError unless a tensor has the device of another and its type, or one that autocast makes of it.

    of_any_precision: any floating type will do.
    """
    if part.device != like.device:
        raise VptError(
            f"{said} on {part.device}, and the model is on {like.device}; keep it in a parameter or a buffer "
            "(register_buffer), which move with the model"
        )
    mixed = torch.is_autocast_enabled(like.device.type) and part.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if part.dtype != like.dtype and not mixed and not (of_any_precision and part.is_floating_point()):
        how = "convert it with `.to`" if part.is_floating_point() else "leave out what rounds (argmax, long)"
        raise VptError(f"{said} of {part.dtype}, expected {like.dtype}, in which the model computes; {how}")

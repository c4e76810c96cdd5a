"""Prompts that are keys and values of a block's attention as they are, through no projection (prefix tuning)."""

from __future__ import annotations

from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import KeysValues
from vpt.errors import VptError
from vpt.prompts.base import Blocks, choose_blocks, one_width


def prefix_blocks(blocks: Blocks, spec: BackboneSpec, method: str) -> tuple[int, ...]:
    """The chosen blocks, sorted.

    Raises:
        VptError: blocks of several widths; one that widens its tokens, whose keys may be wider than they; one of
            several attentions, each of which has keys as wide as the tokens.
    """
    chosen = choose_blocks(blocks, spec)
    one_width(spec, chosen, f"prompts as keys and values ({method})")
    if widening := [i for i in chosen if spec.left(i).width != spec.blocks[i].width]:
        raise VptError(
            f"prompts: block {widening[0]} of {spec.name} widens its tokens, which {method} has no form for; "
            "choose other blocks"
        )
    if several := [i for i in chosen if spec.blocks[i].branches > 1]:
        raise VptError(
            f"prompts: block {several[0]} of {spec.name} runs {spec.blocks[several[0]].branches} attentions at once, "
            f"which {method} has no form for; choose deep prompts"
        )
    return chosen


def keys_values(prompts: Tensor, heads: int) -> KeysValues:
    """Prompts (B, l, C) -> the first half of the l rows as keys, the second as values, (B, heads, l / 2, C / heads)."""
    keys, values = (half.unflatten(-1, (heads, -1)).transpose(1, 2) for half in prompts.chunk(2, dim=1))
    return KeysValues(keys, values)

"""What makes a prompt method: a section of the config that builds it, and what it does in a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec, no_place
from vpt.backbones.tokens import Context, Tokens
from vpt.errors import VptError
from vpt.prompts.starts.random import projection, uniform_prompts
from vpt.sections import Choice, Compared, require_whole

Blocks = str | Sequence[int]  # "all", "global", "last:4" or block numbers
BlocksSetting = str | tuple[int, ...]  # the same as a setting
Init = Literal["uniform", "tokens", "kmeans", "vipamin"]  # how prompts start: see `vpt.prompts.starts`
MOST = 4096  # prompts: as many as SAM's encoder has patches; more are a slip, and would take all memory
RATE = 1.25e-3  # from which `vpt compare` searches that of prompts


@dataclass(frozen=True)
class Info:
    """What a method may use of a batch besides its images; None is unknown.

    hints: (B, N, 3), see `Head.forward`; place: (B,) in [0, 1], of a slice in its volume; task: (B,) whole numbers,
    which task a sample belongs to; query: (B, C), the frozen encoder's own feature of the image; mean_query: of a block
    and the tokens that enter it, the query of their mean (B, heads, head_dim), see `Backbone.mean_query`.
    """

    hints: Tensor | None = None
    place: Tensor | None = None
    task: Tensor | None = None
    query: Tensor | None = None
    mean_query: Callable[[int, Tokens], Tensor] | None = None


class PromptSettings(Choice):
    """The section of a prompt method: `method` is its name, the other fields are the arguments of what it builds."""

    method: str

    def build(self, spec: BackboneSpec) -> Prompts:
        """The prompts for an encoder."""
        raise NotImplementedError

    def build_for(self, spec: BackboneSpec, classes: int) -> Prompts:
        """The prompts for an encoder and a head with so many answers (background included), which few methods ask."""
        return self.build(spec)

    def arguments(self) -> dict[str, Any]:
        """The settings that `build` hands on."""
        return self.model_dump(exclude={"method", "init"})

    def further(self) -> Self:
        """The settings for one more task, see `Prompts.continue_from`."""
        return self


class FromTokens(PromptSettings):
    """The section of a method whose prompts can start from the encoder's own tokens."""

    init: Init = "uniform"
    """How prompts start: at random as VPT's ("uniform"), or from the encoder's own tokens on training images: a sample
    of them ("tokens"), centres of them ("kmeans"; both SPT), or "vipamin".
    """

    @model_validator(mode="after")
    def _has_tokens_of_its_own(self) -> Any:
        """`project` and `shared` leave no width, or no block, whose tokens prompts could start from."""
        if self.init != "uniform" and (getattr(self, "project", None) is not None or getattr(self, "shared", False)):
            raise ValueError(
                f"init {self.init} needs prompts as wide as the encoder and a set of them for each block; "
                "leave out project and shared, or take init uniform"
            )
        return self


def compared(name: str, shown: str, **settings: Any) -> Compared:
    """A row of `vpt compare`."""
    return Compared(name, shown, settings, RATE)


class Prompts(nn.Module):
    """No prompts: every block runs as it is. Methods override `enter`, or `context` where that is all they do.

    `starts`: the blocks whose tokens the prompts can start from, `count` prompts for each (`vpt.prompts.starts`).
    `constant`: in eval mode `enter` leaves the tokens as they are and gives every block its `context`, whatever the
    image, so that its keys and values can be computed once (`PromptedModel.project_prompts`); of a method with an
    `enter` of its own it is not believed.
    `needs_query`: they are chosen by `Info.query`, which the model makes where it is not given: a second pass of the
    image through the frozen encoder, from where the first prompts come on.
    `needs_mean_query`: they are chosen by `Info.mean_query`, in the pass itself.
    """

    starts: tuple[int, ...] = ()
    constant: bool = False
    needs_query: bool = False
    needs_mean_query: bool = False
    count: int = 0

    def first(self, depth: int) -> int:
        """The first of `depth` blocks that does not run as in the frozen encoder; `depth` where all do.

        Methods that say nothing else act from the first block on.
        """
        return depth if type(self) is Prompts else 0

    def begin(self, images: Tensor | None, info: Info) -> Any:
        """Called once per pass, before all blocks: the state that this pass hands to `enter` and `penalty`.

        images: (B, 3, H, W) normalised, or None where what the blocks below the prompts give was stored.
        """
        return None

    def context(self, i: int, batch: int) -> Context | None:
        """What block `i` attends to besides its tokens, of a method to which neither tokens nor images matter.

        (P, C), or (B, P, C) where samples differ, as dropout makes them.
        """
        return None

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Context | None]:
        """Called before block `i`: the tokens that enter it, and what it attends to besides, (P, C) or (B, P, C)."""
        return tokens, self.context(i, tokens.grid.shape[0])

    def penalty(self, state: Any) -> Tensor | None:
        """Called after a pass in training: what the method adds to the loss, or None."""
        return None

    def take_over(self, learned: Prompts, rows: Sequence[int | None]) -> None:
        """Start from what prompts with the same settings have learned for other labels, see `Head.start_from`."""
        self.load_state_dict(learned.state_dict())

    def continue_from(self, learned: Self) -> None:
        """Begin a further task where these learned the ones before, whose settings were `further` to these.

        Methods that say nothing else train on what they have; others keep that and add what trains.
        """
        self.load_state_dict(learned.state_dict())

    def start_from(self, tokens: Sequence[Tensor]) -> None:
        """Set the prompts to tokens (count, C) of the frozen encoder, one tensor for each of `starts`."""
        raise VptError(f"prompts: {type(self).__name__} cannot start from tokens; choose init uniform")


# --- tables of prompts ------------------------------------------------------------------------------------------------


def by_width(widths: Sequence[int], make: Callable[[int, int], Tensor]) -> nn.Parameter | nn.ParameterList:
    """Learned rows for blocks of these widths: one parameter where all are alike, else one for each width in order.

    make: (rows, width) -> the values (rows, ...) that they start with.
    """
    groups = [nn.Parameter(make(widths.count(width), width)) for width in dict.fromkeys(widths)]
    return groups[0] if len(groups) == 1 else nn.ParameterList(groups)


def row_of(values: Any, widths: Sequence[int], row: int) -> Tensor:
    """A row of what `by_width` made, counted over all widths."""
    if isinstance(values, Tensor):
        return values[row]
    group = list(dict.fromkeys(widths)).index(widths[row])
    return values[group][widths[:row].count(widths[row])]


def require_fit(prompts: Prompts, spec: BackboneSpec) -> None:
    """Refuse prompts that were made for an encoder of other widths, or for blocks that this one does not have."""
    if beyond := [i for i in prompts.starts if i >= spec.depth]:
        raise VptError(
            f"prompts: made for an encoder that has a block {beyond[0]}, and {spec.name} has blocks 0 to "
            f"{spec.depth - 1}; make them for its own spec"
        )
    widths = {block.width for block in spec.blocks}
    for table in prompts.modules():
        if isinstance(table, PromptTable) and (other := {*table.widths} - widths):
            own = ", ".join(map(str, sorted(widths)))
            raise VptError(
                f"prompts: made for an encoder {min(other)} wide, and {spec.name} is {own}; make them for its own spec"
            )


class PromptTable(nn.Module):
    """Learned prompts, `count` for each of the blocks: published initialisation, optional projection, dropout.

    `tokens` is (rows, count, C), or a list of such tensors where the blocks differ in width.

    Args:
        spec: of the encoder they are for; blocks: a row for each of them; count: prompts in a row.
        project: width in which the prompts are learned, mapped to the encoder's by one shared Linear; None learns
            them in the encoder's width.
        dropout: probability, drawn per sample as published (Jia et al., ECCV 2022, appendix A).

    Raises:
        VptError: a projection for blocks of several widths.
    """

    def __init__(self, spec: BackboneSpec, *, blocks: Sequence[int], count: int, project: int | None, dropout: float):
        super().__init__()
        require_positive(count=count, project=1 if project is None else project)
        self.widths = [spec.blocks[i].width for i in blocks]
        if project is not None and len(set(self.widths)) > 1:
            raise VptError(
                f"prompts: project needs blocks of one width, those of {spec.name} have "
                f"{', '.join(map(str, dict.fromkeys(self.widths)))}; leave it out"
            )
        learned = self.widths if project is None else [project] * len(self.widths)
        self.tokens = by_width(learned, lambda rows, width: uniform_prompts(rows, count, width, spec.first_patch))
        self.project = nn.Identity() if project is None else projection(project, self.widths[0])
        self.dropout = nn.Dropout(dropout)

    def row(self, row: int, batch: int) -> Tensor:
        """Prompts (P, C), or (B, P, C) where dropout makes them differ between samples."""
        prompts = self.project(row_of(self.tokens, self.widths, row))
        if self.training and self.dropout.p > 0:
            return self.dropout(prompts.expand(batch, -1, -1))
        return prompts

    def start_from(self, tokens: Sequence[Tensor]) -> None:
        """Set the prompts to tokens (count, C) of the frozen encoder, one for each row."""
        if not isinstance(self.project, nn.Identity):
            raise VptError("prompts: they are projected, so they cannot start from tokens; leave out `project`")
        own = [row_of(self.tokens, self.widths, row) for row in range(len(self.widths))]
        found, expected = ([tuple(each.shape) for each in rows] for rows in (tokens, own))
        if found != expected:
            raise VptError(
                f"prompts: tokens to start from are {found}, expected {expected}; "
                "give (count, width) for each of the blocks, in their order"
            )
        with torch.no_grad():
            for row, values in zip(own, tokens, strict=True):
                row.copy_(values)


def require_positive(**numbers: int) -> None:
    require_whole("prompts", instead=", or choose `none` for no prompts", **numbers)


def choose_blocks(blocks: Blocks, spec: BackboneSpec) -> tuple[int, ...]:
    """`"all"`, `"global"` (all but the windowed ones), `"last:4"` or block numbers -> sorted numbers of blocks.

    Only blocks that attend have a place for prompts: the others are not among "all", nor counted by "last".
    """
    attending, depth = spec.attending, spec.depth
    blocks = blocks if isinstance(blocks, str) else [*blocks]
    if blocks == "all":
        return attending
    if blocks == "global":
        blocks = [i for i in attending if not spec.blocks[i].windowed]
        if not blocks:
            raise VptError("prompts: blocks global, but all of the encoder's blocks are windowed; choose all or last:K")
    if isinstance(blocks, str):
        kind, _, number = blocks.partition(":")
        if kind != "last" or not number.isdecimal() or not 1 <= int(number) <= len(attending):
            raise VptError(
                f"prompts: blocks {blocks!r} is not known; expected all, global, last:K with K in "
                f"1..{len(attending)}, or a list"
            )
        return attending[len(attending) - int(number) :]
    chosen = tuple(sorted(set(blocks)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise VptError(
            f"prompts: blocks {list(blocks)} are not in 0..{depth - 1}; name at least one of the encoder's blocks"
        )
    if odd := [i for i in chosen if i not in attending]:
        raise no_place(spec, odd[0])
    return chosen


def one_width(spec: BackboneSpec, blocks: Sequence[int], method: str) -> int:
    """The width of these blocks; VptError where they differ, which `method` has no form for."""
    widths = list(dict.fromkeys(spec.blocks[i].width for i in blocks))
    if len(widths) > 1:
        raise VptError(
            f"prompts: {method} needs blocks of one width, those of {spec.name} have {', '.join(map(str, widths))}; "
            "choose blocks of one stage, or deep prompts"
        )
    return widths[0]


def require_grid(tokens: Tokens, grid: tuple[int, ...], method: str) -> None:
    """Raise VptError unless the image has the grid of patches whose places the prompts were made for."""
    if (found := tuple(tokens.grid.shape[1:3])) != grid:
        raise VptError(
            f"prompts: {method} prompts were made for the places of {grid[0]}x{grid[1]} patches, and an image has "
            f"{found[0]}x{found[1]}; give images of the size that they were made for, or choose deep prompts"
        )


def shared_over_batch(prompts: Tensor, batch: int) -> Tensor:
    """(P, C) or (B, P, C) -> (B, P, C)."""
    return prompts if prompts.ndim == 3 else prompts.expand(batch, *prompts.shape)

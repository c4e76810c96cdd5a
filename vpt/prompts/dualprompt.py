"""DualPrompt (Wang et al., ECCV 2022, arXiv:2204.04799): prompts that all tasks share, and prompts of each task."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.query import query_width
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.errors import VptError
from vpt.prompts.base import (
    MOST,
    Blocks,
    BlocksSetting,
    Info,
    Prompts,
    PromptSettings,
    require_positive,
    shared_over_batch,
)
from vpt.prompts.pools.keys import cosines, query_in
from vpt.prompts.pools.prefix import keys_values, prefix_blocks
from vpt.prompts.starts.random import uniform_prompts

General = Literal["first", "always"]


class DualpromptConfig(PromptSettings):
    method: Literal["dualprompt"] = "dualprompt"
    """Prompts that all tasks share, and some of each task, which the image chooses (DualPrompt)."""
    general_length: int = Field(6, ge=2, le=MOST, multiple_of=2)
    """Rows of a prompt that all tasks share: the first half are keys, the second values."""
    general_blocks: BlocksSetting = (0, 1)
    """Which blocks have it: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    general: Literal["first", "always"] = "first"
    """When it trains: with the `first` task alone, so that what was learned before a task stays as it is, or `always`,
    as published.
    """
    length: int = Field(20, ge=2, le=MOST, multiple_of=2)
    """Rows of a task's prompt."""
    blocks: BlocksSetting = (2, 3, 4)
    """Which blocks have it."""
    pull: float = Field(1.0, ge=0)
    """Weight of the loss that draws a task's key to its images."""
    learned: int = Field(1, ge=1, le=MOST)
    """Tasks that it has learned, the one that trains among them; `vpt train --continue` counts them."""

    def build(self, spec: BackboneSpec) -> DualpromptPrompts:
        return DualpromptPrompts(spec, **self.arguments())

    def further(self) -> Self:
        return self.model_copy(update={"learned": self.learned + 1})


class Asked(NamedTuple):
    """State of a pass: each image's task, (B,), and the cosine of its query with the newest task's key, (B,)."""

    task: Tensor
    cosine: Tensor


class DualpromptPrompts(Prompts):
    """G in some blocks for all tasks, E_t in others for task t; the rows of both are keys and values, half and half.

    Training knows the task, which is the newest, and pulls its key k_t to q, the frozen encoder's feature of the image:
    `penalty` is pull * (1 - cos(q, k_t)), the mean over images. Else t is `Info.task` where it is known, or the task
    whose key has the largest cosine with q. Earlier tasks' E and k are buffers; G is one too from the second task on,
    unless `general` is "always". Then, told the task, the encoder gives bit for bit what it gave when the task was new.
    Parameters: blocks * length * C + Q, and of the first task general blocks * general length * C.

    Args:
        spec: of the encoder; the others: see `DualpromptConfig`.

    Raises:
        VptError: a block that is chosen for both.
    """

    needs_query = True
    general: Tensor
    past_experts: Tensor
    past_keys: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        general_length: int = 6,
        general_blocks: Blocks = (0, 1),
        general: General = "first",
        length: int = 20,
        blocks: Blocks = (2, 3, 4),
        pull: float = 1.0,
        learned: int = 1,
    ):
        super().__init__()
        require_positive(learned=learned)
        shared, own = (prefix_blocks(each, spec, "dualprompt") for each in (general_blocks, blocks))
        if twice := sorted({*shared} & {*own}):
            raise VptError(
                f"prompts: block {twice[0]} is among blocks and general_blocks; dualprompt has one prompt in a block"
            )
        self.shared, self.own = ({block: row for row, block in enumerate(each)} for each in (shared, own))
        self.heads = [block.heads for block in spec.blocks]
        self.pull = pull
        start = uniform_prompts(len(shared), general_length, spec.blocks[shared[0]].width, spec.first_patch)
        if learned == 1 or general == "always":
            self.general = nn.Parameter(start)
        else:
            self.register_buffer("general", start)
        self.expert = nn.Parameter(uniform_prompts(len(own), length, spec.blocks[own[0]].width, spec.first_patch))
        self.key = nn.Parameter(uniform_prompts(1, 1, query_width(spec), spec.first_patch)[0, 0])
        self.register_buffer("past_experts", torch.zeros(learned - 1, *self.expert.shape))
        self.register_buffer("past_keys", torch.zeros(learned - 1, *self.key.shape))

    def experts(self) -> Tensor:
        """The expert prompts of all tasks, (tasks, blocks, length, C)."""
        return torch.cat([self.past_experts, self.expert.unsqueeze(0)])

    def keys(self) -> Tensor:
        """The keys of all tasks, (tasks, Q)."""
        return torch.cat([self.past_keys, self.key.unsqueeze(0)])

    def first(self, depth: int) -> int:
        return min(*self.shared, *self.own)

    def begin(self, images: Tensor | None, info: Info) -> Asked:
        keys = self.keys()
        found, tasks = cosines(query_in(info), keys), len(keys)
        if self.training:
            task = torch.full_like(found[:, 0], tasks - 1, dtype=torch.int64)
        elif info.task is None:
            task = found.argmax(1)
        else:
            task = info.task
            if not bool(((task >= 0) & (task < tasks)).all()):
                raise VptError(f"prompts: task {task.tolist()}, but these know the tasks 0 to {tasks - 1}")
        return Asked(task, found[:, -1])

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, KeysValues | None]:
        if i in self.shared:
            rows = shared_over_batch(self.general[self.shared[i]], tokens.grid.shape[0])
            return tokens, keys_values(rows, self.heads[i])
        if i in self.own:
            return tokens, keys_values(self.experts()[state.task, self.own[i]], self.heads[i])
        return tokens, None

    def penalty(self, state: Any) -> Tensor:
        return self.pull * (1 - state.cosine).mean()

    @torch.no_grad()
    def continue_from(self, learned: Self) -> None:
        self.general.copy_(learned.general)
        self.past_experts.copy_(learned.experts())
        self.past_keys.copy_(learned.keys())
        self.expert.copy_(learned.expert)

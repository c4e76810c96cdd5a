"""The idea in one function, and the module that trains it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vpt.backbones.base import Added, Backbone, BackboneSpec
from vpt.backbones.query import query_of, rows_for_query
from vpt.backbones.tokens import Context, Features, Keep, Tokens
from vpt.contract import answering, entering, first_block, require_part, require_penalty
from vpt.errors import VptError
from vpt.heads.base import Head
from vpt.mixing import Mixing
from vpt.prompts.base import Info, Prompts, require_fit
from vpt.trigger import Trigger

PER_TOKEN = 16  # numbers that inference holds at once, in widths of the encoder
PER_PIXEL = 150  # and of the mask head, with which a decoder of SAM is smaller
PER_CLASS = 3  # logits: as they come, put together from tiles, and resized
PARTS = ("prompts", "head", "backbone", "mixing", "trigger")  # of a model, as its parameters are counted
UNKNOWN = Info()


def encode(
    backbone: Backbone,
    prompts: Prompts,
    images: Tensor,
    info: Info = UNKNOWN,
    levels: Collection[int] = (),
    keep: Keep = "all",
    checkpointing: bool = False,
) -> Features:
    """Normalised images (B, 3, H, W) -> features, with the grids after the blocks in `levels`.

    Autograd records nothing below the first prompted block, since nothing there needs a gradient; above it gradients
    cross the frozen blocks, so this must not run under `no_grad` in training. For `keep` and `checkpointing` see
    `encode_from`.
    """
    backbone.require_images(images)
    below = Below(0, backbone.embed(images))
    state = prompts.begin(images, informed(info, prompts, backbone, below))
    return encode_from(below, backbone, prompts, state, levels, keep, checkpointing)


@dataclass(frozen=True)
class Below:
    """What is known of a pass before block `first`: the tokens that enter it, and the grids below it that a head reads.

    levels: (B, C, H, W) each, as `frozen_below` gives them.
    """

    first: int
    tokens: Tokens
    levels: Sequence[Tensor] = ()


def encode_from(
    below: Below,
    backbone: Backbone,
    prompts: Prompts,
    state: Any,
    levels: Collection[int] = (),
    keep: Keep = "all",
    checkpointing: bool = False,
) -> Features:
    """The rest of `encode`, from the tokens as they enter block `below.first`.

    state: what `prompts.begin` gave for this pass;
    keep: "first" leaves out of the last block what only serves other tokens than the first, which alone are finished;
    checkpointing: what is inside a block is not kept for the backward pass but computed again there.
    """
    tokens, kept = below.tokens, list(below.levels)
    enter = entering(prompts, backbone.spec.depth)
    for i in range(below.first, backbone.spec.depth):
        tokens, context = enter(i, tokens, state)
        rows = keep if i == backbone.spec.depth - 1 and i not in levels else "all"
        if checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(backbone.block, i, tokens, context, rows, use_reentrant=False)
        else:
            tokens = backbone.block(i, tokens, context, rows)
        if i in levels:
            kept.append(tokens.grid.permute(0, 3, 1, 2))
    features = backbone.finish(tokens)
    return replace(features, levels=(*kept, *features.levels))


@torch.no_grad()
def frozen_below(first: int, backbone: Backbone, images: Tensor, levels: Collection[int] = ()) -> Below:
    """Normalised images (B, 3, H, W) -> what the encoder without prompts makes of them below block `first`."""
    tokens, kept = backbone.embed(images), []
    for i in range(first):
        tokens = backbone.block(i, tokens, None)
        if i in levels:
            kept.append(tokens.grid.permute(0, 3, 1, 2))
    return Below(first, tokens, tuple(kept))


def informed(info: Info, prompts: Prompts, backbone: Backbone, below: Below) -> Info:
    """`info` with what prompts are chosen by: each image's query, see `frozen_query`, or a block's `mean_query`."""
    if prompts.needs_mean_query and info.mean_query is None:
        info = replace(info, mean_query=backbone.mean_query)
    if not prompts.needs_query or info.query is not None:
        return info
    return replace(info, query=frozen_query(backbone, below))


@torch.no_grad()
def frozen_query(backbone: Backbone, below: Below) -> Tensor:
    """(B, C), the encoder's own feature of each image without any prompts, from the tokens that enter `below.first`.

    So of an image whose lower blocks were stored it is the same, up to the rounding of what is stored.
    """
    tokens, depth = below.tokens, backbone.spec.depth
    for i in range(below.first, depth):
        tokens = backbone.block(i, tokens, None, rows_for_query(backbone.spec) if i == depth - 1 else "all")
    return query_of(backbone.spec, backbone.finish(tokens))


class ProjectedPrompts(Prompts):
    """Prompts that are keys and values already, for inference with a model whose weights no longer change.

    They are no buffers: not part of what is saved, and not moved to another device.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts):
        super().__init__()
        contexts = [prompts.context(i, 1) for i in range(backbone.spec.depth)]
        self.contexts = [backbone.project(i, c) if isinstance(c, Tensor) else c for i, c in enumerate(contexts)]

    def context(self, i: int, batch: int) -> Context | None:
        return self.contexts[i]


@dataclass(frozen=True)
class Encoded:
    """What the encoder and its prompts give of a batch: features, and in training what the prompts add to the loss."""

    features: Features
    penalty: Tensor | None = None


class Output(NamedTuple):
    """What a model gives of a batch: logits (B, K, ...), and in training what its prompts add to the loss, or None."""

    logits: Tensor
    penalty: Tensor | None = None


class PromptedModel(nn.Module):
    """A frozen backbone, trained prompts, a trained head: images (B, 3, H, W) -> the head's output.

    Where its data have more channels than three, their `mixing` trains as well, and so does a `trigger` that is added
    to images; they come before all this, see `vpt.tasks.images`.

    What trains is what has `requires_grad`; the backbone is frozen here and stays in eval mode whatever `train` says
    (but for what tuning has `Added` to it).

    Set `checkpointing` to trade time for memory in training, see `encode_from`.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        head: Head,
        mixing: Mixing | None = None,
        trigger: Trigger | None = None,
    ):
        super().__init__()
        require_part(backbone, Backbone)
        require_part(prompts, Prompts)
        require_part(head, Head)
        require_fit(prompts, backbone.spec)
        _require_levels(head, backbone.spec)
        self.backbone = backbone.requires_grad_(False)
        self.prompts = prompts
        self.head = head
        self.mixing = mixing
        self.trigger = trigger
        self.checkpointing = False
        self._projected: ProjectedPrompts | None = None
        self._encode_from = encode_from
        self.register_load_state_dict_post_hook(_without_projected)
        self.train()

    @property
    def acting_prompts(self) -> Prompts:
        """The prompts that a pass goes through: the model's own, or what `project_prompts` made of them."""
        return self._projected or self.prompts

    def encode(self, images: Tensor | None, info: Info = UNKNOWN, below: Below | None = None) -> Encoded:
        """Normalised images (B, 3, H, W) -> all that the head reads; below: where that part of the encoder ran before.

        Then the images serve only a method that looks at them, and may be None.
        """
        prompts, head = self.acting_prompts, self.head
        if below is None:
            assert images is not None
            self.backbone.require_images(images)
            below = Below(0, self.backbone.embed(images))
        state = prompts.begin(images, informed(info, prompts, self.backbone, below))
        features = self._encode_from(below, self.backbone, prompts, state, head.levels, head.reads, self.checkpointing)
        penalty = prompts.penalty(state) if self.training else None
        require_penalty(prompts, penalty)
        return Encoded(features, penalty)

    def features(self, images: Tensor) -> Features:
        """Normalised images (B, 3, H, W) -> all that the head reads."""
        return self.encode(images).features

    def run(self, images: Tensor, hints: Tensor | None = None, info: Info = UNKNOWN) -> Output:
        """Normalised images (B, 3, H, W) -> logits and penalty.

        `hints` (B, N, 3): see `Head.forward`; only for a head that takes them.
        """
        if hints is not None and not self.head.takes_hints:
            raise ValueError(f"{type(self.head).__name__} takes no boxes or points")
        encoded = self.encode(images, info if hints is None else replace(info, hints=hints))
        features, answer = encoded.features, answering(self.head)
        logits = answer(features, images) if hints is None else answer(features, images, hints)
        return Output(logits, encoded.penalty)

    def forward(self, images: Tensor, hints: Tensor | None = None) -> Tensor:
        """The logits of `run`."""
        return self.run(images, hints).logits

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        for module in self.backbone.modules():
            if isinstance(module, Added):
                module.train(mode)
        if mode:
            self._projected = None
        return self

    @torch.no_grad()
    def project_prompts(self) -> Self:
        """Make ready for inference: what the blocks make of the prompts is computed here, once; `train` drops it.

        To be called where the model will run, on its device and under its autocast. Prompts that depend on the image,
        or that travel with the tokens, stay as they are; so do those with an `enter` of their own, of which only the
        `context` would be kept.
        """
        self.eval()
        constant = self.prompts.constant and type(self.prompts).enter is Prompts.enter
        self._projected = ProjectedPrompts(self.backbone, self.prompts) if constant else None
        return self

    def compile_blocks(self) -> Self:
        """Run the blocks through `torch.compile`; the first batch of every shape then takes a minute or so."""
        self._encode_from = torch.compile(encode_from)
        return self

    def first_trained_block(self) -> int:
        """How many of the encoder's blocks, from the first on, run as in the frozen encoder whatever is learned.

        0 as soon as anything of the backbone trains, since tuning may have reached any block, and where the channels
        are mixed or a trigger is added, since then no image stays the same.
        """
        changed = self.mixing is not None or self.trigger is not None
        if changed or any(parameter.requires_grad for parameter in self.backbone.parameters()):
            return 0
        return first_block(self.prompts, self.backbone.spec.depth)

    def trained(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of everything that trains, in the module's order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_state(self) -> dict[str, Tensor]:
        """What training leaves behind: trained parameters, and the buffers of prompts and head."""
        state = {name: p.detach() for name, p in self.trained().items()}
        state |= {name: b for name, b in self.named_buffers() if not name.startswith("backbone.")}
        return state

    def count_parameters(self) -> dict[str, int]:
        """Trained parameters by part (mixing and trigger where there are such), their sum, and the frozen rest."""
        parts = {
            name: sum(p.numel() for p in module.parameters() if p.requires_grad)
            for name in PARTS
            if (module := getattr(self, name)) is not None
        }
        total = sum(parts.values())
        return parts | {"trained": total, "frozen": sum(p.numel() for p in self.parameters()) - total}


def _without_projected(model: PromptedModel, _: Any) -> None:
    """Drop keys and values that were computed of other prompts than those that are loaded."""
    model._projected = None


def _require_levels(head: Head, spec: BackboneSpec) -> None:
    """Refuse a head that reads blocks which are not there, or not in their order, in which it is given their grids."""
    levels: Any = head.levels
    if not isinstance(levels, Collection) or list(levels) != sorted({*levels} & {*range(spec.depth)}):
        raise VptError(
            f"{type(head).__name__}: levels is {levels!r}, expected blocks of {spec.name} in their order, each once, "
            f"from 0 to {spec.depth - 1}"
        )


def name_in_model(name: str) -> str:
    """What a parameter of a module around a model is called in it: `prompts.table` of `module.model.prompts.table`."""
    parts = name.split(".")
    place = next((k for k, part in enumerate(parts) if part in PARTS), 0)
    return ".".join(parts[place:])


def trained_parts(counts: Mapping[str, int]) -> list[str]:
    """The parts of `count_parameters` that are worth a word: prompts and head, and of the others what trains."""
    return [part for part in PARTS if counts.get(part) or part in ("prompts", "head")]


def numbers_per_image(spec: BackboneSpec, size: int, classes: int = 0) -> int:
    """Numbers that an image (3, size, size) holds at once without a backward pass; classes: of a mask, 0 for none."""
    share = size**2 / (spec.image_size[0] * spec.image_size[1])
    widest = max((block.width * block.grid[0] * block.grid[1] for block in spec.blocks), default=0)
    return PER_TOKEN * round(widest * share) + ((PER_PIXEL + PER_CLASS * classes) * size**2 if classes else 0)

"""Prompts and heads of others, tried before the first step: what they say of themselves, and what they answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from encoders import WIDTH, make_vit
from safetensors.torch import load_file
from tiny_classes import ONE_CLASS_STEP
from torch import Tensor, nn

import vpt
from vpt.backbones.tokens import Features, Tokens
from vpt.engine.run import train
from vpt.engine.sound import Asked, require_sound
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.heads.base import Answer, Head, HeadSettings
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts
from vpt.prompts.base import Info, PromptSettings
from vpt.sections import HEADS, PROMPTS
from vpt.tasks.classification import StackModel, StackModelOverPrefix
from vpt.tasks.segmentation import SliceModel, SliceModelOverPrefix

SIZE, CLASSES = (64, 40), 3
SLOPE = torch.linspace(-1, 1, WIDTH)


class Late(Prompts):
    """A row of prompts from block 2 on, and what enters the blocks below it, as a test says."""

    constant: bool = False

    def __init__(self, below: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.below, self.rows = below, nn.Parameter(torch.zeros(3, WIDTH))

    def first(self, depth: int) -> int:
        return 2

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        if i >= 2:
            return tokens, self.rows
        return (tokens if self.below is None else replace(tokens, grid=self.below(tokens.grid))), None


class Gated(Late):
    """What it does below its first block is multiplied with 0 before it learns."""

    def __init__(self) -> None:
        super().__init__(lambda grid: grid + self.gate * SLOPE)
        self.gate = nn.Parameter(torch.zeros(WIDTH))


class Remembering(Late):
    """What block 2 is given was seen in block 0 of the same pass."""

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        if i == 0:
            self.seen = tokens.grid.mean((1, 2))
        tokens, context = super().enter(i, tokens, state)
        return tokens, None if context is None else context + self.seen[:, None]


class Looking(Late):
    def begin(self, images: Tensor | None, info: Info) -> Any:
        assert images is not None, "no images"
        return None


class Counting(DeepPrompts):
    """`constant` by what it derives from, and otherwise in every pass."""

    def begin(self, images: Tensor | None, info: Info) -> Any:
        assert images is not None
        self.brightness = images.mean((1, 2, 3))

    def context(self, i: int, batch: int) -> Tensor:
        found = super().context(i, batch)
        assert isinstance(found, Tensor)
        seen = self.brightness if len(self.brightness) == batch else self.brightness.new_zeros(batch)
        return found + seen[:, None, None] * SLOPE


class Masks(Head):
    """Logits (B, 3, H, W) of each place, of which a test makes what is given."""

    def __init__(self, made: Callable[[Tensor], Any] = lambda logits: logits, classes: int = CLASSES):
        super().__init__()
        self.made, self.output = made, nn.Conv2d(WIDTH, classes, 1)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        return self.made(F.interpolate(self.output(features.grid), images.shape[-2:]))


class Making(Masks):
    """With a layer that is not there before it is used."""

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        if not hasattr(self, "more"):
            self.more = nn.Conv2d(CLASSES, CLASSES, 1)
        return self.more(super().forward(features, images))


class Lazy(Masks):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.LazyConv2d(CLASSES, 1)


class First(Masks):
    reads = "first"

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        return features.grid.mean((2, 3))[:, :CLASSES, None, None].expand(-1, -1, *SIZE)


class Short(Masks):
    def forward(self, features: Features) -> Any:  # type: ignore[override]
        return None


class Reading(Masks):
    levels = (1,)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        return super().forward(features, images) + features.levels[0].mean((1, 2, 3), keepdim=True)


class Normed(Masks):
    """With what counts the batches that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CLASSES)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        return self.norm(super().forward(features, images))


class Spread(Masks):
    """Divides by the root of what starts at 1 and may not be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.ones(CLASSES, 1, 1))

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Any:
        return super().forward(features, images) / self.variance.sqrt()


def model_of(prompts: Any = None, head: Any = None) -> PromptedModel:
    torch.manual_seed(0)
    backbone = make_vit()
    return PromptedModel(backbone, prompts or DeepPrompts(backbone.spec, count=2), head or Masks())


def try_out(model: PromptedModel) -> None:
    require_sound(model, lambda: SliceModel(model), SliceModelOverPrefix, Asked((3, *SIZE), (CLASSES, *SIZE)))


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (
            lambda: Late(lambda grid: grid + SLOPE),
            r"^prompts .*\.Late: first\(4\) says 2, but from the stored tokens that enter block 2 the model answers "
            r"otherwise \(by .* of the largest\); give the first block that it changes \(0 is always right\), since",
        ),
        (Gated, r"Gated: first\(4\) says 2, but from the stored tokens"),
        (Remembering, r"Remembering: first\(4\) says 2, but from the stored tokens"),
    ],
)
def test_a_first_that_stored_tokens_would_contradict_is_refused(prompts: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        try_out(model_of(prompts()))
    try_out(model_of(Late()))


def test_prompts_that_need_images_where_none_are_stored_are_told_where() -> None:
    model = model_of(Looking(), ClassifyHead(make_vit().spec, outputs=CLASSES))
    asked = Asked((1, 3, *SIZE), (CLASSES,))
    with pytest.raises(
        VptError, match=r"Looking: a pass of two images ends in AssertionError: no images .* \(line \d+ of"
    ):
        require_sound(model, lambda: StackModel(model), StackModelOverPrefix, asked)


def test_a_constant_that_is_none_is_refused() -> None:
    with pytest.raises(VptError, match=r"Counting: `constant` says that .* \(by .* of the largest\); set it to False$"):
        try_out(model_of(Counting(make_vit().spec, count=2)))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            lambda: Masks(lambda logits: logits.permute(0, 2, 3, 1)),
            r"^head .*\.Masks: gives logits \(B, 64, 40, 3\), expected \(B, 3, 64, 40\); put the classes before rows",
        ),
        (lambda: Masks(lambda logits: logits[..., ::2, ::2]), r"gives logits \(B, 3, 32, 20\), .*; resize them to the"),
        (
            lambda: Masks(classes=CLASSES - 1),  # which trains in silence where no batch has the last label
            r"gives logits \(B, 2, 64, 40\), expected \(B, 3, 64, 40\); let `answer` say how many outputs .*, here 3;",
        ),
        (lambda: Masks(classes=CLASSES + 1), r"gives logits \(B, 4, 64, 40\), .* here 3;"),
        (
            lambda: Masks(lambda logits: logits[:, 0]),
            r"gives logits \(B, 64, 40\), .*; give one number for each class at",
        ),
        (
            lambda: Masks(lambda logits: logits.softmax(1)),
            r"its answers lie between 0 and 1 as probabilities do; give log",
        ),
        (lambda: Masks(lambda logits: logits.sigmoid()), r"its answers lie between 0 and 1 as probabilities do"),
        (
            lambda: Masks(lambda logits: logits / 0),
            r"Masks: the answers to two images are not finite; look for divisions",
        ),
        (First, r"the answers to two images are not finite, and `reads` is 'first', so that there is no grid; look"),
        (
            lambda: Masks(lambda logits: logits.detach()),
            r"Masks: no gradient comes from the logits to what trains; leave",
        ),
        (
            lambda: Masks(lambda logits: logits + logits[:1].mean()),
            r"in eval mode an image is answered otherwise alone",
        ),
        (
            lambda: Masks(lambda logits: logits - logits.mean(0)),
            r"alone than beside another one \(by .*\); let nothing",
        ),
        (
            Short,
            r"Short: a pass of two images ends in TypeError: .*forward\(\) takes 2 positional arguments but 3 were",
        ),
        (Making, r"^head .*\.Making: head\.more\.bias is made in its first pass; make it whole in __init__"),
        (Lazy, r"^head .*\.Lazy: head\.output\.weight has no shape before its first pass; make it whole in __init__"),
    ],
)
def test_a_head_that_could_not_train_or_would_answer_otherwise_is_named(head: Any, said: str) -> None:
    with pytest.raises(VptError, match=said):
        try_out(model_of(head=head()))


def test_the_line_of_ones_own_file_is_told() -> None:
    def fails(logits: Tensor) -> Tensor:
        return logits + torch.zeros(7)

    with pytest.raises(
        VptError, match=r"Masks: a pass of two images ends in RuntimeError: The size .* of test_sound\.py"
    ):
        try_out(model_of(head=Masks(fails)))


class Dropping(DeepPrompts):
    """With dropout of its own in every pass."""

    constant = False

    def context(self, i: int, batch: int) -> Tensor:
        found = super().context(i, batch)
        assert isinstance(found, Tensor)
        return F.dropout(found.expand(batch, -1, -1), 0.5, training=True)


@pytest.mark.parametrize(
    ("prompts", "head"),
    [(Late, Masks), (lambda: Dropping(make_vit().spec, count=2), Normed), (None, Reading), (None, Spread)],
)
def test_what_is_sound_stays_as_it_was(prompts: Any, head: Any) -> None:
    model = model_of(prompts and prompts(), head())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = (torch.get_rng_state(), random.getstate())
    try_out(model)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.acting_prompts is model.prompts


def test_methods_of_this_package_are_not_tried() -> None:
    spec = make_vit().spec
    model = model_of(DeepPrompts(spec, count=2), vpt.MaskHead(spec, classes=2))

    def never(*_: Any) -> Any:
        raise AssertionError

    require_sound(model, never, never, Asked((3, *SIZE), (2, *SIZE)))


# --- in a training ----------------------------------------------------------------------------------------------------


class Pooling(ClassifyHead):
    """Pools by what it has learned to ask."""

    def __init__(self, spec: Any, outputs: int):
        super().__init__(spec, outputs=outputs, pool="mean")
        self.ask = nn.Linear(self.width, 1)

    def pool(self, features: Features) -> Tensor:
        grid = features.grid.flatten(2)
        return (grid * self.ask(grid.mT).softmax(1).mT).sum(2)


class Plainly(Head):
    """Classifies, and does not derive from what all do that classify."""

    def __init__(self, spec: Any, outputs: int):
        super().__init__()
        self.output = nn.Linear(spec.finished.width, outputs)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        return self.output(features.grid.mean((2, 3)))


class Few(ClassifyHead):
    def __init__(self, spec: Any, outputs: int):
        super().__init__(spec, outputs=outputs - 1)


class Unfinished(Head):
    """Has no forward."""

    def __init__(self, spec: Any, outputs: int):
        super().__init__()


OWN: dict[str, Any] = {each.__name__: each for each in (Pooling, Plainly, Few, Unfinished)}


class Mine(HeadSettings):
    kind: Literal["mine"] = "mine"
    which: str = "Few"

    def build(self, backbone: Any, answer: Answer) -> Head:
        return OWN[self.which](backbone.spec, answer.classes)


class Shifted(DeepPrompts):
    """Acts below the block that the prompts it derives from begin with."""

    def __init__(self, spec: Any):
        super().__init__(spec, count=2, blocks="last:2")
        self.shift = nn.Parameter(torch.zeros(spec.blocks[0].width))

    def enter(self, i: int, tokens: Tokens, state: Any) -> Any:
        tokens, context = super().enter(i, tokens, state)
        return replace(tokens, grid=tokens.grid + self.shift), context


class Shift(PromptSettings):
    method: Literal["shift"] = "shift"

    def build(self, spec: Any) -> Prompts:
        return Shifted(spec)


class Unbuilt(PromptSettings):
    method: Literal["unbuilt"] = "unbuilt"

    def build(self, spec: Any) -> Prompts:
        DeepPrompts(spec)
        return None  # type: ignore[return-value]


@pytest.fixture
def registered() -> Iterator[None]:
    for section in (Shift, Unbuilt):
        vpt.register_prompts(section)
    vpt.register_heads(Mine)
    yield
    PROMPTS.registered.clear()
    HEADS.registered.clear()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"prompts": {"method": "shift"}},
            r"Shifted: first\(8\) says 6, but from the stored tokens that enter block 6",
        ),
        pytest.param(
            {"prompts": {"method": "unbuilt"}},
            r"^prompts: None, expected an instance of a class that derives from",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"head": {"kind": "mine"}},
            r"Few: gives logits \(B, 2\), expected \(B, 3\); let `answer` say how many outputs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"head": {"kind": "mine", "which": "Plainly"}},
            r"Plainly: a head that classifies derives from vpt\.ClassifyHea",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"head": {"kind": "mine", "which": "Unfinished"}},
            r"Mine: build ends in TypeError: Can't instantiate abstract class Unfinished .* \(line \d+ of test_sound",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_training_refuses_them_before_anything_is_stored(
    tiny_classes: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    base = ONE_CLASS_STEP | {"train.augment": "none", "task": "classification"}
    with pytest.raises(VptError, match=said):
        train(tiny_classes, tmp_path / "run", overrides=base | settings)
    assert not [*tmp_path.glob("**/*.safetensors"), *tmp_path.glob("**/block*.npy")]


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_pooling_of_ones_own_trains_over_a_frozen_encoder(tiny_classes: Path, tmp_path: Path) -> None:
    """Its vectors were stored once, by what it asked before it had learned anything."""
    settings = {"prompts": {"method": "none"}, "head": {"kind": "mine", "which": "Pooling"}, "train.augment": "none"}
    run = train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | {"task": "classification"} | settings)
    log = (run / "train.log").read_text()
    assert "all 8 blocks run once per example" in log
    assert "no gradient" not in log
    assert "head.ask.weight" in load_file(run / "best.safetensors")

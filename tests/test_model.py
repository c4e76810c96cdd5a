"""Prompts and head train, the backbone does not: not in its values, not in its mode, not in what autograd records."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import tune
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vpt.backbones import load_backbone
from vpt.backbones.tokens import Features, Tokens
from vpt.backbones.vit import VitBackbone
from vpt.errors import VptError
from vpt.heads import MaskHead
from vpt.heads.base import Head
from vpt.model import PromptedModel, encode, frozen_below
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts
from vpt.prompts.base import Info
from vpt.sections import TUNINGS
from vpt.tuning.full import tune_full
from vpt.tuning.prompts import tune_prompts

DEPTH, WIDTH, COUNT = 3, 32, 4
METHODS = {
    "none": lambda spec: Prompts(),
    "shallow": lambda spec: ShallowPrompts(spec, count=COUNT),
    "deep": lambda spec: DeepPrompts(spec, count=COUNT),
    "deep_projected": lambda spec: DeepPrompts(spec, count=COUNT, project=8, dropout=0.1),
}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def make_backbone(**options: Any) -> VitBackbone:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**(size | options))
    return VitBackbone(vit, name="tiny", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), sha256="")


def make_model(method: str = "deep", levels: int = 2, **options: Any) -> PromptedModel:
    backbone = make_backbone(**options)
    head = MaskHead(backbone.spec, classes=3, width=16, detail=8, levels=levels)
    return PromptedModel(backbone, METHODS[method](backbone.spec), head)


def draw(batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, 32, 32)


def step(model: PromptedModel) -> None:
    """One step of training, as in a loop of one's own; weight decay and momentum would move what they are given."""
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2, weight_decay=0.1)
    model(draw()).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


# What trains


@EVERY_METHOD
def test_after_steps_prompts_and_head_changed_and_the_backbone_is_bit_identical(method: str) -> None:
    model = make_model(method, qk_norm=True, init_values=0.1, reg_tokens=2)
    backbone, prompts, head = copy_of(model.backbone), copy_of(model.prompts), copy_of(model.head)

    step(model)
    step(model)

    assert changed(model.backbone, backbone) == set()
    assert changed(model.prompts, prompts) == set(prompts)
    assert changed(model.head, head) == set(head)


@EVERY_METHOD
def test_what_trains_is_what_requires_a_gradient(method: str) -> None:
    model = make_model(method)

    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.prompts.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    assert list(model.trained()) == [name for name, p in model.named_parameters() if not name.startswith("backbone.")]


def test_gradients_reach_every_prompt_of_every_block() -> None:
    model = make_model("deep")
    model(draw()).square().mean().backward()

    gradient = model.prompts.table.tokens.grad
    assert gradient.shape == (DEPTH, COUNT, WIDTH)
    assert (gradient.abs().amax(dim=2) > 0).all()


def test_gradients_reach_every_travelling_prompt() -> None:
    model = make_model("shallow")
    model(draw()).square().mean().backward()

    assert (model.prompts.table.tokens.grad.abs().amax(dim=2) > 0).all()


@EVERY_METHOD
def test_no_gradient_is_kept_for_the_backbone(method: str) -> None:
    model = make_model(method)
    model(draw()).square().mean().backward()

    assert all(parameter.grad is None for parameter in model.backbone.parameters())


# Modes


def test_train_returns_the_model_and_the_backbone_stays_in_eval_mode() -> None:
    model = make_model()

    for mode in (True, False, True):
        assert model.train(mode) is model
        assert not any(module.training for module in model.backbone.modules())
        assert all(module.training is mode for part in (model.prompts, model.head) for module in part.modules())
    assert model.eval() is model
    assert not any(module.training for module in model.modules())


def test_a_new_model_is_ready_to_train() -> None:
    model = make_model()

    assert model.training
    assert model.prompts.training
    assert model.head.training
    assert not model.backbone.training


@pytest.mark.parametrize("tuning", TUNINGS.names())
def test_dropout_in_the_backbone_stays_off_while_training(tuning: Any) -> None:
    rates = ("pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
    model = make_model("deep", **dict.fromkeys(rates, 0.5))
    tune(model, tuning)
    model.train()
    images = draw()

    assert torch.equal(model(images), model(images))
    assert torch.equal(model(images), model.eval()(images))


# What autograd records


def test_nothing_is_recorded_below_the_first_prompted_block() -> None:
    backbone = make_backbone().requires_grad_(False)
    prompts = DeepPrompts(backbone.spec, count=COUNT, blocks="last:1")

    features = encode(backbone, prompts, draw(), levels=range(DEPTH))

    assert [level.grad_fn is None for level in features.levels] == [True] * (DEPTH - 1) + [False]
    assert [level.requires_grad for level in features.levels] == [False] * (DEPTH - 1) + [True]
    assert features.grid.requires_grad


def test_nothing_of_the_backbone_is_recorded_without_prompts() -> None:
    backbone = make_backbone().requires_grad_(False)

    features = encode(backbone, Prompts(), draw(), levels=range(DEPTH))

    assert not any(tensor.requires_grad for tensor in (features.grid, features.prefix, *features.levels))


def test_gradients_cross_every_block_above_the_first_prompted_one() -> None:
    backbone = make_backbone().requires_grad_(False)

    features = encode(backbone, DeepPrompts(backbone.spec, blocks=[0]), draw(), levels=range(DEPTH))

    assert all(level.requires_grad for level in features.levels)


def test_a_head_that_reads_the_last_block_trains_prompts_of_the_last_block() -> None:
    backbone = make_backbone()
    head = MaskHead(backbone.spec, classes=2, width=16, detail=8, levels=1)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=COUNT, blocks="last:1"), head)
    before = copy_of(model.prompts)

    step(model)

    assert head.levels == (DEPTH - 1,)
    assert changed(model.prompts, before) == {"table.tokens"}


def test_levels_come_in_the_order_of_the_blocks_and_only_those_asked_for() -> None:
    backbone, images = make_backbone(), draw()
    every = encode(backbone, Prompts(), images, levels=range(DEPTH)).levels

    assert len(every) == DEPTH
    assert encode(backbone, Prompts(), images).levels == ()
    some = encode(backbone, Prompts(), images, levels={2, 0}).levels
    assert torch.equal(some[0], every[0])
    assert torch.equal(some[1], every[2])


# Accounting


def test_parameters_are_counted_by_part() -> None:
    model = make_model("deep")
    backbone = sum(parameter.numel() for parameter in model.backbone.parameters())
    head = sum(parameter.numel() for parameter in model.head.parameters())

    counts = model.count_parameters()

    assert counts == {
        "prompts": DEPTH * COUNT * WIDTH,
        "head": head,
        "backbone": 0,
        "trained": DEPTH * COUNT * WIDTH + head,
        "frozen": backbone,
    }


def test_full_tuning_is_counted_as_such() -> None:
    model = make_model("none")
    everything = sum(parameter.numel() for parameter in model.parameters())
    tune_full(model)

    counts = model.count_parameters()

    assert counts["trained"] == everything
    assert counts["frozen"] == counts["prompts"] == 0
    assert counts["backbone"] + counts["head"] == everything


@EVERY_METHOD
def test_the_trained_state_holds_trained_tensors_only_and_restores_them(method: str) -> None:
    model, fresh = make_model(method), make_model(method)
    step(model)

    state = model.trained_state()

    assert set(state) == set(model.trained())
    assert not any(name.startswith("backbone.") for name in state)
    assert not any(tensor.requires_grad for tensor in state.values())
    assert sum(tensor.numel() for tensor in state.values()) == model.count_parameters()["trained"]
    fresh.load_state_dict(state, strict=False)
    images = draw()
    assert torch.equal(fresh.eval()(images), model.eval()(images))


class NormHead(Head):
    """A head with buffers: the running statistics of a batch norm belong to what training leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, features: Features, images: Tensor) -> Tensor:
        return self.norm(features.grid)


def test_buffers_of_the_head_belong_to_the_trained_state() -> None:
    backbone = make_backbone()
    model = PromptedModel(backbone, Prompts(), NormHead())
    model(draw())

    state = model.trained_state()

    assert set(state) == {f"head.norm.{name}" for name in model.head.norm.state_dict()}
    assert state["head.norm.num_batches_tracked"] == 1


# Full fine-tuning, the control


def test_full_tuning_trains_every_tensor_of_the_backbone() -> None:
    model = make_model("none")
    backbone, head = copy_of(model.backbone), copy_of(model.head)
    tune_full(model)

    step(model)

    # The final norm feeds `features.grid`, which the mask head does not read.
    assert set(backbone) - changed(model.backbone, backbone) == {"vit.norm.weight", "vit.norm.bias"}
    assert changed(model.head, head) == set(head)
    assert not model.backbone.training
    assert any(name.startswith("backbone.") for name in model.trained_state())


def test_prompt_tuning_can_be_chosen_again() -> None:
    model = make_model()
    tune_full(model)
    tune_prompts(model)
    backbone = copy_of(model.backbone)

    step(model)

    assert changed(model.backbone, backbone) == set()
    assert model.count_parameters()["backbone"] == 0


# The life of a pass


class Recorded(Prompts):
    """Prompts that note how they are called: one state per pass, and a penalty of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, WIDTH))
        self.passes: list[dict[str, Any]] = []

    def begin(self, images: Tensor | None, info: Info) -> dict[str, Any]:
        self.passes.append({"images": images, "info": info, "entered": []})
        return self.passes[-1]

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        state["entered"].append(i)
        return tokens, self.weight

    def penalty(self, state: Any) -> Tensor:
        return self.weight.square().sum() * len(state["entered"])


def recorded() -> PromptedModel:
    backbone = make_backbone()
    return PromptedModel(backbone, Recorded(), MaskHead(backbone.spec, classes=3, width=16, detail=8, levels=2))


def test_a_pass_begins_once_and_its_state_enters_every_block() -> None:
    model, images, place = recorded(), draw(), torch.tensor([0.0, 1.0])

    model.run(images, info=Info(place=place))
    model.features(draw(1))

    first, second = model.prompts.passes
    assert first["entered"] == second["entered"] == list(range(DEPTH))
    assert first["images"] is images
    assert first["info"].place is place
    assert second["info"] == Info()
    encode(model.backbone, model.prompts, images, Info(task=torch.zeros(2)))
    assert model.prompts.passes[2]["info"].task.shape == (2,)
    assert len(model.prompts.passes) == 3


def test_a_pass_over_what_was_stored_begins_without_images_and_enters_the_rest() -> None:
    model, images = recorded(), draw()

    found = model.encode(None, below=frozen_below(1, model.backbone, images, model.head.levels)).features

    (state,) = model.prompts.passes
    assert state["images"] is None
    assert state["entered"] == list(range(1, DEPTH))
    assert len(found.levels) == len(model.head.levels)


def test_the_penalty_of_a_pass_comes_with_its_logits_in_training_only() -> None:
    model, images = recorded(), draw()

    output = model.run(images)

    assert torch.equal(output.penalty, torch.tensor(3.0 * WIDTH * DEPTH))
    output.penalty.backward()
    assert torch.equal(model.prompts.weight.grad, torch.full((3, WIDTH), 2.0 * DEPTH))
    assert torch.equal(output.logits, model(images))
    assert model.eval().run(images).penalty is None
    assert make_model("deep").run(images).penalty is None


class HintedHead(NormHead):
    takes_hints = True

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        return features.grid


def test_hints_reach_the_prompts_of_a_head_that_takes_them() -> None:
    model = PromptedModel(make_backbone(), Recorded(), HintedHead())
    hints, query = torch.zeros(2, 1, 3), torch.ones(2, WIDTH)

    model.run(draw(), hints, Info(query=query))

    assert model.prompts.passes[0]["info"] == Info(hints=hints, query=query)
    with pytest.raises(ValueError, match="MaskHead takes no boxes or points"):
        recorded().run(draw(), hints)


def test_prompts_that_are_loaded_after_that_act() -> None:
    ready, other, images = make_model("deep").project_prompts(), make_model("deep"), draw()
    with torch.no_grad():
        before = ready(images)
        for parameter in other.trained().values():
            parameter.add_(0.5)
        ready.load_state_dict(other.state_dict())
        assert not torch.allclose(ready(images), before)
        assert torch.equal(ready(images), other.eval()(images))


def test_prompts_for_another_encoder_are_refused() -> None:
    large = make_backbone(depth=DEPTH + 2).spec
    prompts = DeepPrompts(large, count=2, blocks="last:1")
    backbone = make_backbone()
    with pytest.raises(VptError, match=f"made for an encoder that has a block {DEPTH + 1}, and .* has blocks 0 to"):
        PromptedModel(backbone, prompts, MaskHead(backbone.spec, classes=2, levels=1))


@pytest.mark.parametrize("levels", [(1, 0), (0, 0), (0, DEPTH), (-1, 0)])
def test_a_head_that_reads_blocks_out_of_order_or_that_are_not_there_is_refused(levels: tuple[int, ...]) -> None:
    backbone = make_backbone()
    head = MaskHead(backbone.spec, classes=2, levels=2)
    head.levels = levels
    with pytest.raises(VptError, match=r"MaskHead: levels is .*, expected blocks of .* in their order, each once"):
        PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), head)


def test_prompts_projected_once_are_not_asked_again_until_training_goes_on() -> None:
    model, images, asked = make_model("deep").eval(), draw(), []
    before = model(images)
    context = model.prompts.context
    model.prompts.context = lambda i, batch: asked.append(i) or context(i, batch)  # type: ignore[method-assign]

    ready = model.project_prompts()(images)

    assert asked == list(range(DEPTH))
    torch.testing.assert_close(ready, before, rtol=1e-5, atol=1e-5)
    model.train()(images)
    assert asked == [*range(DEPTH)] * 2


def test_images_that_are_no_tensor_are_refused_in_a_sentence() -> None:
    backbone = load_backbone("vit_micro")
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), MaskHead(backbone.spec, classes=2))
    with pytest.raises(VptError, match="images: a list, expected a tensor"):
        model([])  # type: ignore[arg-type]

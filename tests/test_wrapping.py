"""`vpt.wrap`: timm's model with prompts, for a loop of one's own, and a small state that knows its encoder."""

from __future__ import annotations

import copy
import io
from typing import Any

import hieradets
import hieras
import pytest
import swins
import torch
from encoders import EVA, VIT, draw
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import vpt
from vpt.errors import VptError
from vpt.wrapping import Wrapped


def make(kind: str = "vit", seed: int = 0, classes: int = 5) -> Any:
    torch.manual_seed(seed)
    options = (VIT if kind == "vit" else EVA) | {"num_classes": classes}
    return VisionTransformer(**options) if kind == "vit" else Eva(**options)


def step(model: nn.Module) -> list[float]:
    """The losses of some steps of training."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    images, classes, losses = draw(4), torch.tensor([0, 1, 2, 3]), []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", ["vit", "eva"])
@torch.no_grad()
def test_without_prompts_it_is_timms_model_bit_for_bit(kind: str) -> None:
    expected = make(kind).eval()(draw(2))
    assert torch.equal(vpt.wrap(make(kind), "none").eval()(draw(2)), expected)
    assert vpt.wrap(make(kind, classes=0), "none").eval()(draw(2)).shape == (2, 32)


@pytest.mark.parametrize("prompts", ["deep:3", "shallow:3", {"method": "deep", "count": 2, "blocks": "last:1"}])
def test_prompts_and_head_train_and_nothing_else(prompts: Any) -> None:
    model = vpt.wrap(make(), prompts)
    frozen = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"prompts", "head"}
    losses = step(model)
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in model.backbone.state_dict().items())
    assert not model.backbone.training


def test_prompts_of_ones_own_are_taken() -> None:
    spec = vpt.wrap(make(), "none").spec
    prompts = vpt.DeepPrompts(spec, count=4)
    assert vpt.wrap(make(), prompts).prompts is prompts


@pytest.mark.parametrize(
    ("method", "other", "match"),
    [
        ("deep", {"embed_dim": 64}, "made for an encoder 64 wide, and .* is 32; make them for its own spec"),
        ("shallow", {"embed_dim": 64}, "made for an encoder 64 wide, and .* is 32; make them for its own spec"),
        ("deep", {"depth": 9}, "made for an encoder that has a block [0-9], and .* has blocks 0 to [0-9]; make them"),
    ],
)
def test_prompts_made_for_another_encoder_are_refused(method: str, other: dict[str, int], match: str) -> None:
    theirs = vpt.wrap(VisionTransformer(**VIT | other), method + ":4")
    model = make()
    with pytest.raises(VptError, match=match):
        vpt.wrap(model, theirs.prompts)
    assert vpt.wrap(model, method)(draw(1)).shape == (1, 5)


def test_a_state_is_small_and_gives_the_same_model_back() -> None:
    model = vpt.wrap(make(), "deep:3")
    step(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    assert file.tell() < 20_000
    other = vpt.wrap(make(), "deep:3")
    file.seek(0)
    assert str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
    assert torch.equal(model.eval()(draw(2)), other.eval()(draw(2)))


def test_a_state_within_a_larger_module_stays_small_and_loads() -> None:
    one, other = (nn.Sequential(nn.Identity(), vpt.wrap(make(), "deep:3")) for _ in range(2))
    assert not any("backbone" in name for name in one.state_dict())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(draw(2)), other.eval()(draw(2)))
    state = one.state_dict()
    del state["1.prompts.table.tokens"]
    with pytest.raises(RuntimeError, match=r"1\.prompts\.table\.tokens"):
        other.load_state_dict(state)


def test_a_state_of_another_encoder_is_refused() -> None:
    state = vpt.wrap(make(), "deep:3").state_dict()
    with pytest.raises(VptError, match=r"belongs to an encoder whose weights have SHA-256 .*wrap the model that"):
        vpt.wrap(make(seed=1), "deep:3").load_state_dict(state)


def test_checkpointing_and_autocast_change_no_more_than_rounding() -> None:
    model = vpt.wrap(make(), "deep:3")

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model(draw(2)).square().sum().backward()
        return model.prompts.table.tokens.grad.clone()

    plain = gradient()
    model.checkpointing = True
    torch.testing.assert_close(gradient(), plain)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradient()
    assert nn.functional.cosine_similarity(half.flatten(), plain.flatten(), dim=0) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("prompts", ["none", "deep:3", "shallow:3", "conditioned:3"])
def test_it_is_exported_for_batches_of_any_size(prompts: str) -> None:
    model = vpt.wrap(make(), prompts).eval()
    exported = torch.export.export(model, (draw(2),), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(draw(5)), model(draw(5)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow  # compiles
def test_it_compiles() -> None:
    model = vpt.wrap(make(), "deep:3").eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(draw(2)), model(draw(2)), rtol=1e-4, atol=1e-4)


def test_it_learns_under_ddp(tmp_path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        model = vpt.wrap(make(), "deep:3")
        losses = step(nn.parallel.DistributedDataParallel(model))
    finally:
        dist.destroy_process_group()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ("deap:3", "no method is called 'deap'; did you mean deep"),
        ("deep:x", "after the colon comes how many, as in deep:10"),
        ({"method": "deep", "cuont": 3}, "prompts: cuont=3 .*deep has method, .*count"),
        ("deep:0", "prompts: count=0"),
    ],
)
def test_mistakes_are_said(prompts: Any, sentence: str) -> None:
    with pytest.raises(VptError, match=sentence):
        vpt.wrap(make(), prompts)


def test_a_model_of_another_kind_is_refused_and_stays_as_it_is() -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=3)
    with pytest.raises(
        VptError, match=r"ResNet is not supported, since it is made of convolutions.*; choose a timm Vision"
    ):
        vpt.wrap(model)
    assert model.num_classes == 3
    assert isinstance(vpt.wrap(make()), Wrapped)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "method", ["deep", "shallow", "fourier", "gated", "low_rank", "cross", "conditioned", "additive"]
)
def test_a_model_of_another_type_has_prompts_of_that_type(method: str, dtype: torch.dtype) -> None:
    model = vpt.wrap(make().to(dtype), method)
    assert model(draw(2).to(dtype)).dtype == dtype
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_a_model_that_says_nothing_of_its_images_has_a_normalisation() -> None:
    encoder = make()
    encoder.pretrained_cfg = {"std": (0.2, 0.3, 0.4)}
    spec = vpt.wrap(encoder, "none").spec
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))


def test_a_method_that_adds_to_the_loss_is_refused() -> None:
    with pytest.raises(VptError, match="L2pPrompts adds to the loss, which a loop of your own does not see"):
        vpt.wrap(make(), "l2p")


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(2, 1, 64, 40), r"\(2, 1, 64, 40\) of torch\.float32"),
        (torch.zeros(2, 3, 64, 50), r"\(2, 3, 64, 50\) of torch\.float32"),
        (torch.zeros(3, 64, 40), r"\(3, 64, 40\) of torch\.float32"),
        (torch.zeros(2, 3, 64, 40, dtype=torch.uint8), r"\(2, 3, 64, 40\) of torch\.uint8"),
    ],
)
@pytest.mark.parametrize("kind", ["vit", "eva", "swin", "hiera", "hieradet"])
def test_images_that_do_not_fit_are_refused_in_a_sentence(kind: str, images: torch.Tensor, found: str) -> None:
    staged = {"swin": swins, "hiera": hieras, "hieradet": hieradets}
    model = vpt.wrap(staged[kind].make_timm() if kind in staged else make(kind), "deep:2")
    with pytest.raises(VptError, match=rf"images {found}, expected normalised ones \(B, 3, \d+, \d+\); resize them"):
        model(images)


@pytest.mark.parametrize("prompts", ["additive", "conditioned:2"])
def test_prompts_with_places_refuse_images_of_another_grid(prompts: str) -> None:
    torch.manual_seed(0)
    model = vpt.wrap(VisionTransformer(**VIT | {"num_classes": 5, "dynamic_img_size": True}), prompts).eval()
    assert model(draw(2)).shape == (2, 5)
    with pytest.raises(VptError, match=r"made for the places of 8x5 patches, and an image has 8x6; give images of"):
        model(draw(2, (64, 48)))
    with pytest.raises(VptError, match=r"images \(2, 3, 64, 44\)"):
        model(draw(2, (64, 44)))
    deep = vpt.wrap(VisionTransformer(**VIT | {"num_classes": 5, "dynamic_img_size": True}), "deep:2")
    assert deep(draw(2, (64, 48))).shape == (2, 5)


def test_a_grey_encoder_takes_grey_images() -> None:
    model = vpt.wrap(VisionTransformer(**VIT | {"num_classes": 5, "in_chans": 1}), "deep:2")
    assert model(draw(2)[:, :1]).shape == (2, 5)
    with pytest.raises(VptError, match=r"expected normalised ones \(B, 1, 64, 40\)"):
        model(draw(2))


def test_a_model_that_was_taken_apart_is_not_wrapped_without_its_classifier() -> None:
    model = make()
    copied = copy.deepcopy(model)
    assert vpt.wrap(model, "deep:3")(draw(2)).shape == (2, 5)
    with pytest.raises(VptError, match=r"wrapped before, which took its classifier; make another one, or wrap a copy"):
        vpt.wrap(model, "deep:3")
    assert vpt.wrap(copied, "deep:3")(draw(2)).shape == (2, 5)


@pytest.mark.parametrize(
    "other",
    [{"method": "cross", "count": 3, "blocks": "last:1"}, {"method": "deep", "count": 3, "blocks": [0]}, "shallow:3"],
    ids=["method", "blocks", "travelling"],
)
def test_a_state_of_other_prompts_with_tensors_of_the_same_shape_is_refused(other: Any) -> None:
    model = vpt.wrap(make(), {"method": "deep", "count": 3, "blocks": "last:1"})
    state = model.state_dict()
    with pytest.raises(VptError, match=r"belongs to prompts that are .*DeepPrompts.*\"3\": 0.*; wrap the model with"):
        vpt.wrap(make(), other).load_state_dict(state)
    del state["prompts_json"]  # as version 0.6 saved it
    again = vpt.wrap(make(), {"method": "deep", "count": 3, "blocks": "last:1"})
    assert str(again.load_state_dict(state)) == "<All keys matched successfully>"
    assert torch.equal(again.eval()(draw(2)), model.eval()(draw(2)))


@pytest.mark.parametrize(
    "prompts", ["deeep:10", "deep:0", {"count": 0}, None, 10, "l2p", {"method": "deep", "blocks": "last:99"}]
)
def test_after_a_mistake_the_model_is_as_it_was_and_the_next_call_takes_it(prompts: Any) -> None:
    model, images = make().eval(), torch.randn(2, 3, 64, 40)
    trained = [each.requires_grad for each in model.parameters()]
    with torch.no_grad():
        before = model(images)
        with pytest.raises(VptError):
            vpt.wrap(model, prompts)
        assert torch.equal(model(images), before)
        assert [each.requires_grad for each in model.parameters()] == trained
        assert torch.equal(vpt.wrap(model, "none").eval()(images), before)


@pytest.mark.parametrize("model", ["vit_micro", None])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(VptError, match="expected one of timm's, as create_model makes it"):
        vpt.wrap(model)


def test_hooks_beside_the_blocks_act() -> None:
    model, seen = make(), []
    model.norm.register_forward_hook(lambda *given: seen.append(given))
    vpt.wrap(model, "deep:2").eval()(draw(1))
    assert len(seen) == 1


@pytest.mark.parametrize("where", ["", "blocks.1", "blocks.0.attn.qkv"])
@pytest.mark.parametrize("how", ["after", "before", "patched"])
def test_hooks_that_would_not_act_are_refused_and_once_removed_are_no_matter(where: str, how: str) -> None:
    model = make()
    module = model.get_submodule(where)
    if how == "patched":
        module.forward = lambda *given: given
    else:
        register = module.register_forward_hook if how == "after" else module.register_forward_pre_hook
        handle = register(lambda *given: None)
    with pytest.raises(VptError, match=f"{where or 'it'} has hooks or a `forward` of its own, which would not act"):
        vpt.wrap(model, "deep:2")
    if how == "patched":
        del module.forward
    else:
        handle.remove()
    assert vpt.wrap(model, "deep:2").eval()(draw(1)).shape == (1, 5)


@pytest.mark.parametrize("images", [None, [1.0], draw(1).numpy()])
def test_what_is_no_tensor_is_refused_in_a_sentence(images: Any) -> None:
    with pytest.raises(VptError, match=r"^images: an? .*, expected a tensor \(B, 3, H, W\), normalised$"):
        vpt.wrap(make(), "deep:2")(images)


def test_a_start_from_tokens_is_refused_since_there_are_no_images() -> None:
    with pytest.raises(VptError, match="init=vipamin starts from tokens of training images, which `wrap` is not given"):
        vpt.wrap(make(), {"method": "deep", "count": 3, "init": "vipamin"})


def test_a_state_holds_what_of_the_encoder_somebody_lets_train() -> None:
    model, images = vpt.wrap(make(), "deep:2"), torch.randn(2, 3, 64, 40)
    trained = model.backbone.get_parameter(next(name for name, _ in model.backbone.named_parameters())).requires_grad_()
    with torch.no_grad():
        trained.add_(0.1)
    state = model.state_dict()
    assert sum(name.startswith("backbone.") for name in state) == 1
    again = vpt.wrap(make(), "deep:2")
    again.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))


def test_what_was_tuned_of_the_encoder_is_kept_when_it_is_frozen_again_and_saved_once_more() -> None:
    model, images = vpt.wrap(make(), "deep:2"), draw(2)
    block = model.backbone.get_submodule("vit.blocks.1").requires_grad_(True)
    step(model)
    block.requires_grad_(False)
    with torch.no_grad():
        expected = model.eval()(images)

    for source in (model, copy.deepcopy(model)):
        state = source.state_dict()
        for _ in range(2):
            again = vpt.wrap(make(), "deep:2")
            again.load_state_dict(state)
            with torch.no_grad():
                assert torch.equal(again.eval()(images), expected)
            state = again.state_dict()
        assert {name for name in state if name.startswith("backbone.")} == {
            f"backbone.vit.blocks.1.{name}" for name, _ in block.named_parameters()
        }


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_keeps_what_was_tuned_alone(kind: torch.dtype) -> None:
    model = vpt.wrap(make(), "deep:2")
    assert not [name for name in copy.deepcopy(model).to(kind).state_dict() if name.startswith("backbone.")]
    tuned = next(name for name, _ in model.backbone.named_parameters())
    with torch.no_grad():
        model.backbone.get_parameter(tuned).add_(0.1)
    assert [name for name in model.to(kind).state_dict() if name.startswith("backbone.")] == [f"backbone.{tuned}"]


def test_numbers_that_only_change_places_are_kept_and_parameters_of_other_names_are_nobodys() -> None:
    model = vpt.wrap(make(), "deep:2")
    name, weight = next((n, p) for n, p in model.backbone.named_parameters() if p.ndim == 4)
    with torch.no_grad():
        weight.copy_(weight.flip(1))
    assert f"backbone.{name}" in model.state_dict()
    other = vpt.wrap(make(), "deep:2")
    other.backbone.get_submodule("vit.blocks.0").extra = nn.Linear(2, 2).requires_grad_(False)
    assert not [key for key in other.state_dict() if key.startswith("backbone.")]
    assert not [key for key in other.to("meta").state_dict() if key.startswith("backbone.")]


def test_images_of_another_floating_type_are_refused_in_a_sentence_but_under_autocast() -> None:
    model = vpt.wrap(make(), "deep:2")
    with pytest.raises(VptError, match=r"images of torch.float64, and a model of torch.float32; give images.to"):
        model(torch.randn(2, 3, 64, 40).double())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 3, 64, 40).bfloat16()).dtype == torch.bfloat16

"""The controls: each trains exactly what it promises, starts where it promises, and learns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vpt.artifact import read_artifact, save_artifact
from vpt.backbones import load_backbone
from vpt.backbones.base import Added, Backbone
from vpt.backbones.sam import SamBackbone
from vpt.backbones.tokens import Features, Tokens
from vpt.backbones.vit import VitBackbone
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.engine.optim import build_optimizer
from vpt.errors import VptError
from vpt.heads.base import Head
from vpt.model import PromptedModel, encode
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts
from vpt.restoring import load_trained, restore_model
from vpt.tuning.partial import tune_partial
from vpt.tuning.ssf import Scaled

C, DEPTH, HEADS, SIDE, PATCH, NECK, WINDOW, COUNT = 32, 3, 2, 48, 8, 16, 3, 4
HEAD_DIM, GRID = C // HEADS, SIDE // PATCH
BLOCKS, RANK, NARROW = 2, 3, 5
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "bias": {},
    "partial": {"blocks": BLOCKS},
    "ssf": {},
    "adapter": {"width": NARROW},
    "lora": {"rank": RANK},
}
WINDOWED = (0, 2)  # of SAM's blocks
NORM = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "name": "tiny", "sha256": "as loaded"}


def fill(encoder: nn.Module) -> Any:
    """Every tensor random, so that no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def make_vit(**options: Any) -> VitBackbone:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": C, "depth": DEPTH, "num_heads": HEADS}
    more = {"num_classes": 0, "qk_norm": True, "init_values": 0.5, "reg_tokens": 1}
    return VitBackbone(fill(VisionTransformer(**(size | more | options))), **NORM)


def make_sam(**options: Any) -> SamBackbone:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": C, "depth": DEPTH, "num_heads": HEADS}
    more = {"use_rel_pos": True, "window_size": WINDOW, "global_attn_indexes": (1,), "out_chans": NECK}
    encoder = fill(ImageEncoderViT(**(size | more | options)))
    return SamBackbone(encoder, None, padding="corner", image_size=(SIDE, SIDE), **NORM)


class GridHead(Head):
    """One frozen linear map of the finished grid, so that what is learned is learned by the tuning."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.read = nn.Conv2d(backbone.spec.finished.width, 1, 1)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        return self.read(features.grid)


MAKERS: dict[str, Callable[..., Any]] = {"vit": make_vit, "sam": make_sam}
PROMPTS: dict[str, Callable[[Any], Prompts]] = {
    "none": lambda spec: Prompts(),
    "shallow": lambda spec: ShallowPrompts(spec, count=COUNT),
    "deep": lambda spec: DeepPrompts(spec, count=COUNT),
}
EVERY_ENCODER = pytest.mark.parametrize("encoder", MAKERS)
EVERY_METHOD = pytest.mark.parametrize("method", SETTINGS)
WITH_PROMPTS = pytest.mark.parametrize("prompts", PROMPTS)
ADDING = pytest.mark.parametrize("method", ["ssf", "adapter", "lora"])


def make_model(encoder: str, prompts: str = "none", **options: Any) -> PromptedModel:
    backbone = MAKERS[encoder](**options)
    model = PromptedModel(backbone, PROMPTS[prompts](backbone.spec), GridHead(backbone))
    model.head.requires_grad_(False)
    return model


def tune(model: PromptedModel, method: str, **more: Any) -> PromptedModel:
    torch.manual_seed(5)
    encoders.tune(model, method, **(SETTINGS[method] | more))
    return model


def without_dropout(method: str) -> dict[str, float]:
    """Settings with which a pass in training is a formula, not a draw."""
    return {"dropout": 0.0} if method == "adapter" else {}


def stir(model: PromptedModel) -> None:
    """As if trained: nothing is at its start."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.2 * torch.randn_like(parameter))


def draw(batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, SIDE, SIDE)


def squares(batch: int = 12) -> tuple[Tensor, Tensor]:
    """Noisy images (B, 3, S, S) with a bright square of whole patches, and where it lies (B, 1, G, G)."""
    torch.manual_seed(2)
    truth = torch.zeros(batch, 1, GRID, GRID)
    for image in truth:
        row, column = torch.randint(0, GRID - 2, (2,)).tolist()
        image[:, row : row + 3, column : column + 3] = 1
    images = F.interpolate(truth, size=(SIDE, SIDE)).expand(-1, 3, -1, -1)
    return images + 0.5 * torch.randn(batch, 3, SIDE, SIDE), truth


def learn(model: PromptedModel, steps: int, lr: float, decay: float = 0.0) -> list[float]:
    images, truth = squares()
    optimizer = torch.optim.AdamW(model.trained().values(), lr=lr, weight_decay=decay)
    losses = []
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(model(images), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# How many


def expected_count(encoder: str, method: str, whole: int) -> int:
    sam = encoder == "sam"
    norms = 0 if sam else 2 * HEAD_DIM  # widths of a ViT's q and k norms
    tables = [2 * HEAD_DIM * (2 * (WINDOW if i in WINDOWED else GRID) - 1) for i in range(DEPTH)]
    block = 12 * C**2 + 13 * C + (0 if sam else 2 * norms + 2 * C)  # layer scale
    return {
        "full": whole,
        "bias": DEPTH * (11 * C + norms) + C + (2 * NECK if sam else C),
        "partial": BLOCKS * block + (sum(tables[-BLOCKS:]) + C * NECK + 9 * NECK**2 + 4 * NECK if sam else 2 * C),
        "ssf": 2 * DEPTH * (11 * C + norms) + 2 * C + (8 * NECK if sam else 2 * C),
        "adapter": DEPTH * (2 * C * NARROW + NARROW + C),
        "lora": DEPTH * 6 * C * RANK,
    }[method]


@EVERY_ENCODER
@EVERY_METHOD
def test_trained_parameters_are_as_many_as_the_formula_says(encoder: str, method: str) -> None:
    model = make_model(encoder, "deep")
    whole = sum(parameter.numel() for parameter in model.backbone.parameters())
    expected = expected_count(encoder, method, whole)

    counts = tune(model, method).count_parameters()

    assert counts["backbone"] == expected
    assert counts["prompts"] == DEPTH * COUNT * C
    assert counts["trained"] == expected + counts["prompts"]
    added = expected if method in ("ssf", "adapter", "lora") else 0
    head = sum(parameter.numel() for parameter in model.head.parameters())
    assert counts["trained"] + counts["frozen"] == whole + added + counts["prompts"] + head


@pytest.mark.parametrize("method", ["partial", "bias", "ssf"])
def test_the_norm_of_a_mean_of_patches_is_a_part_of_the_encoder(method: str) -> None:
    """BEiT and its like end in `fc_norm` where others end in `norm`."""
    options = {"class_token": False, "reg_tokens": 0, "global_pool": "avg", "fc_norm": True, "final_norm": True}
    model = tune(make_model("vit", **options), method)
    pooled = {name for name in model.trained() if ".fc_norm." in name}

    assert {name.rpartition(".")[2] for name in pooled} == {
        "partial": {"weight", "bias"}, "bias": {"bias"}, "ssf": {"gamma", "beta"}
    }[method]  # fmt: skip

    state = model.trained_state()
    earlier = {name: tensor + 1 for name, tensor in state.items() if name not in pooled}
    load_trained(model, earlier, Path("before.safetensors"))  # what did not train then stays as it is
    assert all(torch.equal(tensor, model.trained_state()[name]) for name, tensor in earlier.items())
    if len(pooled) > 1:
        with pytest.raises(VptError, match="fc_norm"):  # one of two is a file that is not whole
            load_trained(model, {name: state[name] for name in state if name != min(pooled)}, Path("x"))


def test_an_adapter_is_64_wide_but_a_quarter_of_the_encoder_at_most() -> None:
    for width, expected in ((C, C // 4), (384, 64)):
        model = make_model("vit", embed_dim=width, depth=1)
        encoders.tune(model, "adapter")
        assert model.count_parameters()["backbone"] == 2 * width * expected + expected + width


# Where it starts


@EVERY_ENCODER
@EVERY_METHOD
def test_it_starts_exactly_at_the_frozen_output(encoder: str, method: str) -> None:
    model, images = make_model(encoder), draw()
    with torch.no_grad():
        frozen = encode(model.backbone, Prompts(), images, levels=range(DEPTH))
        tuned = encode(tune(model, method).backbone, Prompts(), images, levels=range(DEPTH))

    assert torch.equal(tuned.grid, frozen.grid)
    assert torch.equal(tuned.prefix, frozen.prefix)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(tuned.levels, frozen.levels, strict=True))


@EVERY_ENCODER
@EVERY_METHOD
@pytest.mark.parametrize("prompts", ["shallow", "deep"])
def test_with_prompts_it_starts_at_the_frozen_output_too(encoder: str, method: str, prompts: str) -> None:
    model, images = make_model(encoder, prompts), draw()
    with torch.no_grad():
        frozen = model(images)
        tuned = tune(model, method)(images)

    assert (tuned - frozen).abs().max() <= 1e-6 * frozen.abs().max().clamp(min=1)


@EVERY_METHOD
def test_with_sams_own_arithmetic_as_well(method: str) -> None:
    model, images = make_model("sam"), draw()
    model.backbone.attention = "original"
    with torch.no_grad():
        assert torch.equal(model(images), tune(model, method)(images))


# What they compute


@ADDING
@EVERY_ENCODER
def test_what_is_added_computes_its_formula(encoder: str, method: str) -> None:
    model, plain = tune(make_model(encoder), method, **without_dropout(method)), make_model(encoder)
    stir(model)
    block, own = (next(m.backbone.children()).blocks[1] for m in (model, plain))
    x = torch.randn(2, 5, C)
    with torch.no_grad():
        if method == "ssf":
            found = block.norm2(x)
            expected = block.norm2.gamma * own.norm2(x) + block.norm2.beta
        elif method == "adapter":
            down, up = block.mlp.down, block.mlp.up
            found = block.mlp(block.norm2(x))
            added = (x @ down.weight.T + down.bias).relu() @ up.weight.T + up.bias
            expected = own.mlp(own.norm2(x)) + 0.1 * added
        else:
            a, b = block.attn.qkv.lora_A["default"].weight, block.attn.qkv.lora_B["default"].weight
            found = block.attn.qkv(x)
            expected = own.attn.qkv(x) + 8 / RANK * x @ a.T @ b.T
    assert (found - expected).abs().max() <= 1e-5


@EVERY_ENCODER
def test_an_adapter_behind_the_norm_computes_the_formula_of_normed_tokens(encoder: str) -> None:
    model, plain = tune(make_model(encoder), "adapter", normed=True, dropout=0.0), make_model(encoder)
    stir(model)
    block, own = (next(m.backbone.children()).blocks[1] for m in (model, plain))
    down, up, x = block.mlp.down, block.mlp.up, torch.randn(2, 5, C)
    with torch.no_grad():
        normed = own.norm2(x)
        found = block.mlp(block.norm2(x))
        expected = own.mlp(normed) + 0.1 * ((normed @ down.weight.T + down.bias).relu() @ up.weight.T + up.bias)
    assert (found - expected).abs().max() <= 1e-5


# What changes


def promised(name: str, method: str) -> bool:
    """Whether a method may change this parameter of the encoder as it was loaded."""
    if method == "partial":
        blocks = tuple(f".blocks.{i}." for i in range(DEPTH - BLOCKS, DEPTH))
        return any(part in name for part in blocks) or name.startswith(("vit.norm.", "encoder.neck."))
    return method == "full" or (method == "bias" and name.endswith(".bias"))


@EVERY_ENCODER
@EVERY_METHOD
@WITH_PROMPTS
def test_after_steps_exactly_what_it_promises_has_changed(encoder: str, method: str, prompts: str) -> None:
    model = make_model(encoder, prompts)
    own = dict(model.backbone.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    tune(model, method)
    trained = {name: parameter.detach().clone() for name, parameter in model.trained().items()}

    learn(model, 2, lr=1e-3, decay=0.1)

    kept = {id(parameter) for parameter in model.backbone.parameters()}
    assert all(id(parameter) in kept for parameter in own.values())
    changed = {name for name, parameter in own.items() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in own if promised(name, method)}
    assert [name for name, start in trained.items() if torch.equal(model.trained()[name], start)] == []
    assert all(parameter.grad is None for name, parameter in own.items() if name not in changed)


@EVERY_ENCODER
@EVERY_METHOD
def test_the_backbone_stays_in_eval_mode_and_keeps_its_identity(encoder: str, method: str) -> None:
    model = tune(make_model(encoder), method)
    added = [module for module in model.backbone.modules() if isinstance(module, Added)]

    assert len(added) == (DEPTH if method == "adapter" else 0)
    for mode in (None, True, False):  # as it was tuned, and after
        if mode is not None:
            model.train(mode)
        assert [module for module in model.backbone.modules() if module.training] == (added if model.training else [])
    assert model.backbone.sha256 == "as loaded"


# That it learns

RATES = {"full": 3e-3, "bias": 1e-2, "partial": 3e-3, "ssf": 1e-2, "adapter": 1e-2, "lora": 1e-2}


@pytest.mark.slow
@EVERY_ENCODER
@EVERY_METHOD
def test_it_learns_to_find_a_square(encoder: str, method: str) -> None:
    model = tune(make_model(encoder), method)

    losses = learn(model, 60, lr=RATES[method])

    assert losses[-1] < 0.6 * losses[0]


# Together with prompts


def literal(backbone: Any, i: int, tokens: Tokens, context: Tensor) -> Tensor:
    """The published form: prompts beside the tokens of every sequence, the whole block over all, their outputs cut."""
    if isinstance(backbone, VitBackbone):
        prompts = context.expand(len(tokens.grid), -1, -1)
        return backbone.vit.blocks[i](torch.cat([tokens.prefix, tokens.grid.flatten(1, 2), prompts], 1))[:, :-COUNT]
    block = backbone.encoder.blocks[i]
    sequences = block.norm1(tokens.grid)
    if block.window_size:
        sequences, padded = window_partition(sequences, block.window_size)
    height, width = sequences.shape[1:3]
    beside = block.norm1(context).expand(len(sequences), -1, -1)
    seen = block.attn(torch.cat([sequences.flatten(1, 2), beside], 1).unsqueeze(1))[:, 0, :-COUNT]
    seen = seen.unflatten(1, (height, width))
    if block.window_size:
        seen = window_unpartition(seen, block.window_size, padded, tokens.grid.shape[1:3])
    grid = tokens.grid + seen
    return (grid + block.mlp(block.norm2(grid))).flatten(1, 2)


@EVERY_ENCODER
@EVERY_METHOD
def test_prompts_go_through_the_tuned_projection(encoder: str, method: str) -> None:
    options = {"use_rel_pos": False} if encoder == "sam" else {}  # prompts have no position
    model = tune(make_model(encoder, "deep", **options), method, **without_dropout(method))
    stir(model)
    images = draw()
    with torch.no_grad():
        tokens = model.backbone.embed(images)
        for i in range(DEPTH):
            context = model.prompts.table.tokens[i]
            expected = literal(model.backbone, i, tokens, context)
            tokens = model.backbone.block(i, tokens, context)
            found = torch.cat([tokens.prefix, tokens.grid.flatten(1, 2)], 1)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


@EVERY_ENCODER
def test_the_frozen_projection_leaves_the_queries_of_prompts_out(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, widths, real = make_model(encoder, "deep"), [], F.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        widths.append((x.shape[-2], len(weight)))
        return real(x, weight, bias)

    monkeypatch.setattr(F, "linear", linear)
    model(draw())

    assert [width for count, width in widths if count == COUNT] == [2 * C] * DEPTH


# What training leaves behind


PLAN = Plan(
    plane="axial", pixel_mm=1.0, image_size=64, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
)  # fmt: skip
LABELS = {0: "background", 1: "a"}


def save(tmp_path: Path, backbone: str, tuning: Any) -> tuple[Path, PromptedModel]:
    """An artifact of a model whose trained tensors are at random places, and the model."""
    values = {
        "data": {"path": str(tmp_path)},
        "backbone": {"name": backbone},
        "prompts": {"method": "deep", "count": 2},
        "tuning": tuning,
    }
    config, path = load_config(values), tmp_path / "a.safetensors"
    model = build_model(config, PLAN, len(LABELS)).eval()
    stir(model)
    save_artifact(path, model, config=config, plan=PLAN, labels=LABELS, scores={})
    torch.manual_seed(99)
    return path, model


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vit_micro", "sam_micro"])
@EVERY_METHOD
def test_a_restored_model_gives_identical_outputs(tmp_path: Path, backbone: str, method: str) -> None:
    path, model = save(tmp_path, backbone, {"method": method} | SETTINGS[method])
    artifact = read_artifact(path)
    restored, images = restore_model(artifact), torch.randn(2, 3, 64, 64)

    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))
    assert artifact.tensors.keys() == model.trained().keys()
    inside = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("backbone.")}
    assert sum(tensor.numel() for tensor in inside.values()) == artifact.counts["backbone"] > 0
    assert artifact.backbone_sha256 == load_backbone(backbone).sha256
    assert not restored.training
    own = load_backbone(backbone, image_size=64)
    direct = PromptedModel(own, Prompts(), GridHead(own))
    encoders.tune(direct, method, **SETTINGS[method])
    assert artifact.counts["backbone"] == direct.count_parameters()["backbone"]


@pytest.mark.slow
def test_an_artifact_from_before_tuning_had_settings_still_loads(tmp_path: Path) -> None:
    path, model = save(tmp_path, "vit_micro", "full")
    with safe_open(path, framework="pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if key != "sha256"}  # there was none
    header = json.loads(metadata["vpt"])
    assert header["config"]["tuning"] == {"method": "full"}
    header["config"]["tuning"] = "full"
    save_file(load_file(path), path, metadata=metadata | {"vpt": json.dumps(header)})

    artifact = read_artifact(path)
    images = torch.randn(2, 3, 64, 64)

    assert artifact.config.tuning.method == "full"
    with torch.inference_mode():
        assert torch.equal(restore_model(artifact)(images), model(images))


@pytest.mark.slow
def test_tensors_of_another_rank_are_refused(tmp_path: Path) -> None:
    path, _ = save(tmp_path, "vit_micro", {"method": "lora", "rank": 2})
    tensors = {name: t[:1].clone() if ".lora_A." in name else t for name, t in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if key != "sha256"}
    save_file(tensors, path, metadata=metadata)

    with pytest.raises(VptError, match=r"misshapen keys: backbone\.vit\.blocks\.0\.attn\.proj\.lora_A"):
        restore_model(read_artifact(path))


# The optimiser


@ADDING
def test_what_is_added_trains_at_the_rate_of_the_backbone_and_only_its_matrices_decay(method: str) -> None:
    model = tune(make_model("vit", "deep"), method)
    optimizer = build_optimizer(model, lr=1e-3, prompt_lr=2e-3, backbone_lr=3e-4, weight_decay=0.1)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}

    assert groups.keys() == {id(parameter) for parameter in model.trained().values()}
    for name, parameter in model.trained().items():
        inside = name.startswith("backbone.")
        assert groups[id(parameter)]["lr"] == (3e-4 if inside else 2e-3)
        assert groups[id(parameter)]["weight_decay"] == (0.1 if inside and parameter.ndim > 1 else 0)


# Mistakes, and mixed precision


def test_without_peft_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(VptError, match=r"^tuning lora: peft is not installed; .*`pip install vpt\[lora\]`$"):
        encoders.tune(make_model("vit"), "lora")


@pytest.mark.parametrize("blocks", [0, DEPTH + 1])
def test_more_blocks_than_there_are_are_refused(blocks: int) -> None:
    with pytest.raises(VptError, match=rf"^tuning partial: blocks is {blocks}, expected 1 to {DEPTH}, which tiny has$"):
        tune_partial(make_model("vit"), blocks=blocks)


def test_an_encoder_without_biases_is_refused() -> None:
    model = make_model("sam")
    for module in model.backbone.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(VptError, match=r"^tuning bias: tiny has no biases; choose partial"):
        tune(model, "bias")


def test_scaling_keeps_the_type_of_its_layer_and_is_exact_at_the_start() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 6), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = Scaled(layer, image=False)(x), layer(x)
    assert found.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(found, plain)


@EVERY_METHOD
def test_gradients_are_finite_in_bfloat16(method: str) -> None:
    model = tune(make_model("vit", "deep"), method)
    with torch.autocast("cpu", torch.bfloat16):
        model(draw()).float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.trained().values())
    assert all(parameter.grad.isfinite().all() for parameter in model.trained().values())

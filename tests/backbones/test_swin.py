"""timm's Swins, taken apart: equal to timm without prompts, and with them to the published form written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import pytest
import timm
import torch
from encoders import draw, shaken, total, tune
from staged import assert_an_artifact_gives_it_back, close, deep, rows_of
from swins import KINDS, SIZE, SIZES, finished, literal, literal_shallow, make_swin, make_timm, wrap_swin
from tiny_run import ONE_STEP
from torch import nn

import vpt
from vpt.artifact import read_artifact
from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.families import published
from vpt.backbones.tokens import SeparateContext
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import (
    AdditivePrompts,
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    Prompts,
    ShallowPrompts,
)
from vpt.restoring import restore_model

EVERY = pytest.mark.parametrize("kind", KINDS)
SLOW = pytest.mark.slow
BOTH = pytest.mark.parametrize("kind", ["v1", "v2"])
ALL = pytest.mark.parametrize("kind", ["v1", "v2", "v2 otherwise"])
FORMS = [(kind, dtype) for kind in ("v1", "v2", "v2 otherwise") for dtype in (torch.float32, torch.float64)]
FORMS += [pytest.param(kind, torch.float64, marks=SLOW) for kind in KINDS if kind not in ("v1", "v2", "v2 otherwise")]
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


# Without prompts


@EVERY
@pytest.mark.parametrize(("size", "window"), SIZES)
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str, size: tuple[int, int], window: int) -> None:
    swin, images = make_timm(kind, size, window), draw(2, size)
    found = encode(wrap_swin(swin), Prompts(), images)
    assert torch.equal(found.grid, finished(swin, images))
    assert found.pooled is not None
    assert torch.equal(found.pooled, swin.forward_head(swin.forward_features(images), pre_logits=True))
    assert found.prefix.shape == (2, 0, 32)


@torch.no_grad()
def test_other_poolings_are_the_models_own_or_the_plain_mean() -> None:
    swin, images = make_timm(global_pool="max"), draw(2, SIZE)
    found = encode(wrap_swin(swin), Prompts(), images)
    assert found.pooled is not None
    assert torch.equal(found.pooled, swin(images))
    assert encode(wrap_swin(swin, pooling="plain"), Prompts(), images).pooled is None


@ALL
@torch.no_grad()
def test_the_spec_tells_what_enters_every_block(kind: str) -> None:
    backbone = wrap_swin(make_timm(kind, (64, 32), 8))
    spec, tokens = backbone.spec, backbone.embed(draw(2, (64, 32)))
    for i, block in enumerate(spec.blocks):
        assert tokens.grid.shape == (2, *block.grid, block.width)
        assert tokens.prefix.shape == tokens.prompts.shape == (2, 0, block.width)
        tokens = backbone.block(i, tokens, None, "first")  # there is no CLS token: everything is given
        assert tokens.grid.shape[1:] == (*spec.left(i).grid, spec.left(i).width)
    assert backbone.finish(tokens).grid.shape == (2, spec.finished.width, *spec.finished.grid)
    assert [block.grid for block in spec.blocks] == [(16, 8)] * 2 + [(8, 4)] * 2
    assert [block.heads for block in spec.blocks] == [2, 2, 4, 4]
    assert [block.windowed for block in spec.blocks] == [True] * 2 + [False] * 2
    assert (spec.patch, spec.attending, spec.pool) == ((8, 8), (0, 1, 2, 3), "mean")


def test_another_size_has_to_be_made_of_whole_patches_of_the_last_stage() -> None:
    with pytest.raises(VptError, match="image size 64x36 is not a multiple of the patch of tiny, 8x8; take 64"):
        wrap_swin(make_timm(size=(64, 36)))


# With prompts


@pytest.mark.parametrize(("kind", "dtype"), FORMS)
@pytest.mark.parametrize(("size", "window"), SIZES)
@torch.no_grad()
def test_deep_prompts_are_a_literal_concatenation_in_every_window(
    kind: str, size: tuple[int, int], window: int, dtype: torch.dtype
) -> None:
    swin, images = make_timm(kind, size, window).to(dtype), draw(2, size).to(dtype)
    backbone = wrap_swin(swin)
    prompts = deep(backbone).to(dtype)
    found = encode(backbone, prompts, images).grid
    assert close(found, literal(swin, images, rows_of(prompts)), EXACT[dtype])
    assert not close(found, encode(backbone, Prompts(), images).grid, 1e-2)  # they do something


@torch.no_grad()
@pytest.mark.parametrize(("size", "window"), SIZES)
def test_travelling_prompts_are_as_the_authors_of_vpt_wrote_them(size: tuple[int, int], window: int) -> None:
    """Of each image alone: their code gives windows the prompts of other images of a batch."""
    swin, images = make_timm("v1", size, window).double(), draw(3, size).double()
    backbone = wrap_swin(swin)
    prompts = shaken(ShallowPrompts(backbone.spec, count=3), 1.0).double()
    found = encode(backbone, prompts, images).grid
    assert close(found, literal_shallow(swin, images, prompts.table.row(0, 1)), 1e-12)
    assert not close(found, encode(backbone, Prompts(), images).grid, 1e-2)


def test_travelling_prompts_learn_start_as_published_and_come_back(small: dict[str, str], tmp_path: Path) -> None:
    backbone = make_swin()
    prompts = ShallowPrompts(backbone.spec, count=400)
    assert prompts.table.tokens.shape == (1, 400, 16)
    assert float(prompts.table.tokens.abs().max()) == pytest.approx((6 / (3 * 4 * 4 + 16)) ** 0.5, rel=0.01)
    for head in (MaskHead(backbone.spec, classes=2, width=8, detail=8), ClassifyHead(backbone.spec, outputs=3)):
        own = ShallowPrompts(backbone.spec, count=3)
        PromptedModel(backbone, own, head)(draw(2, SIZE)).square().sum().backward()
        assert (own.table.tokens.grad.abs().amax(-1) > 0).all()
    assert_an_artifact_gives_it_back(small["v1"], tmp_path / "a.safetensors", method="shallow")


def test_prompts_of_the_second_version_do_not_travel() -> None:
    """No one has published it: its norms come after, and whether before or after the mean is open."""
    for kind in ("v2", "v2 otherwise"):
        backbone = make_swin(kind)
        with pytest.raises(
            VptError, match=r"travels through all blocks \(shallow\) needs blocks of one width.* 16, 32"
        ):
            ShallowPrompts(backbone.spec)
        tokens = backbone.embed(draw(1, SIZE))
        with pytest.raises(VptError, match=r"tiny attends in windows.* cannot travel .* choose deep or additive"):
            backbone.block(0, replace(tokens, prompts=torch.zeros(1, 2, 16)), None)


@BOTH
@torch.no_grad()
def test_separate_prompts_are_attended_to_after_the_windows(kind: str) -> None:
    """x <- x + SA(x); x <- x + CA(x, P); x <- x + MLP(x), with the norms where each version has them, written out."""
    swin = make_timm(kind).double()
    backbone, block = wrap_swin(swin), swin.layers[0].blocks[1]
    grid, prompts = torch.randn(1, 10, 6, 16).double(), torch.randn(4, 16).double()
    tokens = replace(backbone.embed(draw(1, SIZE).double()), grid=grid)
    own: Any = backbone.encoder.blocks[1]
    del own.downsample
    found = backbone.block(1, tokens, SeparateContext(prompts)).grid

    second = kind == "v2"
    x = grid + (block.norm1(block._attn(grid)) if second else block._attn(block.norm1(grid)))
    projected = [own.attn.qkv(part).chunk(3, -1) for part in (x.flatten(1, 2), prompts)]
    heads = []
    for h, (q, k, v) in enumerate(zip(*(p.chunk(2, -1) for p in (projected[0][0], *projected[1][1:])), strict=True)):
        if second:
            q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
            q = q * block.attn.logit_scale[h].exp() * q.shape[-1] ** 0.5
        heads.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    branch = block.attn.proj(torch.cat(heads, -1)).view_as(x)
    x = x + (block.norm1(branch) if second else branch)
    x = x + (block.norm2(block.mlp(x)) if second else block.mlp(block.norm2(x)))
    assert close(found, x, 1e-12)


@torch.no_grad()
def test_normed_separate_prompts_are_the_first_versions_only() -> None:
    first, second = make_swin("v1"), make_swin("v2")
    prompts, images = CrossPrompts(first.spec, normed=True), draw(1, SIZE)
    plain = shaken(CrossPrompts(first.spec))
    plain.load_state_dict(prompts.state_dict())
    assert not torch.equal(encode(first, prompts, images).grid, encode(first, plain, images).grid)
    with pytest.raises(VptError, match="normed, but tiny norms after its attention, nothing before it"):
        encode(second, CrossPrompts(second.spec, normed=True), images)


@BOTH
@torch.no_grad()
def test_additive_prompts_start_at_the_original(kind: str) -> None:
    backbone, images = make_swin(kind), draw(2, SIZE)
    original = encode(backbone, Prompts(), images).grid
    assert torch.equal(encode(backbone, AdditivePrompts(backbone.spec), images).grid, original)


def test_what_has_no_meaning_over_stages_is_refused_with_its_reason() -> None:
    backbone = make_swin()
    with pytest.raises(VptError, match=r"bottleneck that all blocks share \(conditioned\) needs blocks of one width"):
        ConditionedPrompts(backbone.spec)
    conditioned = ConditionedPrompts(backbone.spec, blocks="last:2", count=2)
    assert encode(backbone, conditioned, draw(1, SIZE)).grid.isfinite().all()


@BOTH
def test_the_maps_of_keys_and_values_are_the_linear_part(kind: str) -> None:
    backbone = wrap_swin(make_timm(kind).double())
    own, tokens = backbone.attention_of(2), torch.randn(2, 32).double()
    one = own.norm(tokens) if kind == "v1" else tokens
    difference = own.qkv(one)[0] - own.qkv(one)[1]
    if kind == "v1":
        gain = nn.functional.layer_norm(tokens, (32,)).double()
        tokens = gain * (32 / 31) ** 0.5  # one mean and one deviation, as `key_value_maps` wants them
    for maps, part in zip(backbone.key_value_maps(2), difference.chunk(3)[1:], strict=True):
        mapped = (tokens[0] - tokens[1]) @ maps
        assert float(part @ mapped / (part.norm() * mapped.norm())) == pytest.approx(1)


@BOTH
def test_explained_attention_is_of_the_patches_that_a_window_holds(kind: str) -> None:
    """Another pixel in patch (5, 3) changes what is given in its window, then in those that overlap it when shifted."""
    backbone, images = make_swin(kind), draw(1, SIZE)
    model, other = (
        PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval(),
        images.clone(),
    )
    other[:, :, 21, 13] += 3
    before, after = ({i: each.weights for i, each in read_prompts(model, seen).items()} for seen in (images, other))
    for i, ((top, left), (bottom, right)) in enumerate([((4, 0), (7, 3)), ((2, 0), (9, 5))]):
        rows, columns = (before[i] != after[i]).any(-1).any(1)[0].nonzero().unbind(1)
        assert ((top <= rows) & (rows <= bottom) & (left <= columns) & (columns <= right)).all()
        few = 0.2 if kind == "v2" else 0.7  # many patches of v2 give prompts nothing
        assert len(rows) > few * (bottom - top + 1) * (right - left + 1)
    assert all(((weights >= 0) & (weights <= 1)).all() for weights in before.values())


# In training


@ALL
def test_both_heads_take_a_step_and_checkpointing_changes_nothing(kind: str) -> None:
    backbone = make_swin(kind)
    for head in (MaskHead(backbone.spec, classes=2, width=8, detail=8), ClassifyHead(backbone.spec, outputs=3)):
        model, gradients = PromptedModel(backbone, deep(backbone), head), []
        for checkpointing in (False, True):
            model.checkpointing = checkpointing
            model.zero_grad()
            model(draw(2, SIZE)).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.trained().values()])
        for found, wanted in zip(*gradients, strict=True):
            assert torch.equal(found, wanted)
            assert wanted.abs().max() > 0


@pytest.mark.slow
@ALL
def test_the_controls_train_what_their_formulas_say(kind: str) -> None:
    """Widths 16 and 32, twice each; v2's MLP of positions is no layer that tokens pass through."""
    widths, merged = (16, 16, 32, 32), 32 if kind == "v2" else 64  # v2 norms after it has merged
    norms = 16 + 16 + 32 if kind == "v2 otherwise" else 0  # each block ends with one, the last instead of one behind
    expected = {
        "lora": sum(2 * 6 * width for width in widths),
        "bias": sum(11 * width for width in widths) + 16 + 16 + 32 + merged + norms,
        "adapter": sum(2 * width * (width // 4) + width // 4 + width for width in widths),
        "ssf": 2 * (sum(11 * width for width in widths) + 16 + 16 + 32 + merged + 32 + norms),
    }
    for method, trained in expected.items():
        backbone = make_swin(kind)
        model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3))
        with torch.no_grad():
            before = model(draw(2, SIZE))
            tune(model, method, **({"rank": 2} if method == "lora" else {}))
            torch.testing.assert_close(model.eval()(draw(2, SIZE)), before, rtol=1e-4, atol=1e-5)
        assert total(backbone) == trained, method
        model.train()
        shaken(nn.ParameterList(model.trained().values()), 0.1)
        model(draw(2, SIZE)).square().sum().backward()
        assert all(bool(p.grad.abs().max() > 0) for p in model.trained().values()), method
    for method in ("partial", "full"):
        backbone = make_swin(kind)
        model = tune(PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)), method)
        model(draw(2, SIZE)).square().sum().backward()
        assert all(p.grad is not None for p in model.trained().values()), method


@torch.no_grad()
def test_adapters_of_the_second_version_are_added_after_its_norm() -> None:
    backbone = make_swin("v2")
    block: Any = backbone.encoder.blocks[0]
    mlp, norm = block.mlp, block.norm2
    tune(PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)), "adapter", dropout=0.0)
    shaken(block.mlp.up)
    x = torch.randn(1, 4, 4, 16)
    own = block.mlp
    expected = norm(mlp(x)) + 0.1 * own.up(own.down(x).relu())
    torch.testing.assert_close(block.norm2(block.mlp(x)), expected)
    other = make_swin("v2")
    with pytest.raises(VptError, match="normed, but the MLPs of tiny read tokens that are not normed"):
        tune(PromptedModel(other, Prompts(), ClassifyHead(other.spec, outputs=3)), "adapter", normed=True)


@BOTH
def test_bfloat16_is_as_near_as_timms_own_is_in_bfloat16(kind: str) -> None:
    swin, images = make_timm(kind), draw(4, SIZE)
    backbone = wrap_swin(swin)
    prompts = DeepPrompts(backbone.spec, count=2)
    wanted = literal(swin, images, rows_of(prompts)).detach()
    prepare_frozen(backbone, "bf16-mixed")
    with autocast("bf16-mixed", torch.device("cpu")):
        original = literal(swin, images, rows_of(prompts)).detach().float()  # the same prompts in timm's own layers
        found = encode(backbone, prompts, images).grid.float()
        found.square().sum().backward()
    assert (found - wanted).norm() < 2 * (original - wanted).norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prompts.parameters())


# By name


@pytest.mark.parametrize(
    ("name", "size", "grids", "widths", "windowed"),
    [
        ("swin_tiny_patch4_window7_224", 224, [56, 28, 14, 7], [96, 192, 384, 768], 10),
        ("swin_s3_tiny_224", 224, [56, 28, 14, 7], [96, 192, 384, 768], 4),
        ("swinv2_tiny_window16_256.ms_in1k", 256, [64, 32, 16, 8], [96, 192, 384, 768], 4),
    ],
)
def test_timms_names_are_described(name: str, size: int, grids: Any, widths: Any, windowed: int) -> None:
    spec = describe_backbone(name)
    assert (spec.image_size, spec.patch, spec.depth) == ((size, size), (32, 32), 12)
    assert list(dict.fromkeys(block.grid[0] for block in spec.blocks)) == grids
    assert list(dict.fromkeys(block.width for block in spec.blocks)) == widths
    assert sum(block.windowed for block in spec.blocks) == windowed
    assert spec.mean == (0.485, 0.456, 0.406)
    assert published(name).licence == "mit"


def test_a_pooling_that_widens_is_refused_with_its_reason() -> None:
    with pytest.raises(VptError, match=r"pooling 'catavgmax' does not make a vector as wide as its last stage"):
        wrap_swin(make_timm(global_pool="catavgmax"))


@ALL
@torch.no_grad()
def test_random_weights_are_seeded_and_their_prompts_do_something(kind: str, small: dict[str, str]) -> None:
    one, other = (load_backbone(small[kind], weights="random") for _ in range(2))
    assert one.sha256 == other.sha256
    images = draw(1, SIZE)
    assert not close(encode(one, deep(one), images).grid, encode(one, Prompts(), images).grid, 1e-2)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders as timm saves them for the hub, with random weights."""
    folders = {}
    for kind, name in (
        ("v1", "swin_tiny_patch4_window7_224"),
        ("v2", "swinv2_tiny_window8_256"),
        ("v2 otherwise", "swinv2_cr_tiny_ns_224"),
    ):
        own = {"img_size": SIZE, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
        same: dict[str, Any] = {"v1": {}, "v2": {"pretrained_window_sizes": (0, 0)}}.get(
            kind, {"extra_norm_period": 0, "extra_norm_stage": True}
        )
        own |= same
        model = timm.create_model(name, pretrained=False, num_classes=0, **own)
        model.load_state_dict(make_timm(kind, **same).state_dict())
        folders[kind] = str(tmp_path_factory.mktemp("swins") / kind)
        timm.models.save_for_hf(model, folders[kind], model_args=own, safe_serialization=True)
    return folders


@ALL
@torch.no_grad()
def test_a_folder_loads_at_its_own_size_and_at_another_as_timm_does(kind: str, small: dict[str, str]) -> None:
    swin = timm.create_model(f"local-dir:{small[kind]}", pretrained=True, num_classes=0).eval()
    images = draw(1, SIZE)
    found = encode(load_backbone(small[kind]), Prompts(), images)
    assert torch.equal(found.grid, finished(swin, images))
    swin.set_input_size(img_size=(96, 48))
    backbone, images = load_backbone(small[kind], image_size=(96, 48)), draw(1, (96, 48))
    assert torch.equal(encode(backbone, Prompts(), images).grid, finished(swin, images))
    assert backbone.sha256 == load_backbone(small[kind]).sha256
    with pytest.raises(VptError, match=r"image size 60x60 is not a multiple of the patch of .*, 8x8"):
        load_backbone(small[kind], image_size=60)


@BOTH
def test_the_authors_own_layout_is_read(kind: str, small: dict[str, str], tmp_path: Path) -> None:
    """Merging at the end of a stage, a classifier `head`, and buffers that timm makes itself."""
    backbone, state = load_backbone(small[kind]), {}
    for key, value in make_timm(kind).state_dict().items():
        state[key.replace("layers.1.downsample", "layers.0.downsample")] = value
    state |= {"head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)}
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    state["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(16, 16)
    torch.save({"model": state}, tmp_path / "swin.pth")
    assert load_backbone(small[kind], weights=tmp_path / "swin.pth").sha256 == backbone.sha256
    del state["norm.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(VptError, match=r"missing keys: norm\.weight"):
        load_backbone(small[kind], weights=tmp_path / "less.pth")


# Trained and used


@pytest.mark.parametrize(
    ("kind", "tuning"),
    [
        ("v1", "prompts"),
        ("v2 otherwise", "prompts"),
        *(pytest.param("v2", own, marks=SLOW) for own in ("prompts", "adapter")),
    ],
)
def test_an_artifact_gives_the_same_model_back(kind: str, tuning: str, small: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert_an_artifact_gives_it_back(small[kind], path, tuning)
    with pytest.raises(VptError, match="SHA-256"):
        restore_model(read_artifact(path), small["v2" if kind == "v1" else "v1"])


@pytest.mark.slow  # trains
def test_a_run_segments(small: dict[str, str], tiny_data: Path, tmp_path: Path) -> None:
    run = vpt.train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"backbone.name": small["v1"]})
    scan = next((tiny_data / "imagesTr").glob("*.nii.gz"))
    assert vpt.load(run, device="cpu").segment(scan).shape == nibabel.load(scan).shape

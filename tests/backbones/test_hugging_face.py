"""Weights as `transformers` saves its vision towers: timm's model answers as theirs does, and every key is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import QuickGELU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vpt.backbones.weights import load_weights
from vpt.errors import VptError, VptWarning

transformers = pytest.importorskip("transformers")
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SHAPE: dict[str, Any] = {"image_size": 32, "patch_size": 8}
TIMM: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0
}  # fmt: skip


def dinov3(name: str) -> Any:
    """timm's own DINOv3, made small."""

    def build(**size: Any) -> Any:
        return timm.create_model(name, **(size | {"init_values": 1.0}))

    return build


def kind(model: str, config: str, build: Any, more: dict[str, Any] | None = None, **own: Any) -> Any:
    return model, config, build, more or {}, own


KINDS = {
    "ViT": kind("ViTForImageClassification", "ViTConfig", VisionTransformer),
    "DeiT": kind("DeiTModel", "DeiTConfig", VisionTransformerDistilled),
    "DINOv2": kind("Dinov2Model", "Dinov2Config", VisionTransformer, init_values=1.0),
    "DINOv2, registers": kind(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        VisionTransformer,
        init_values=1.0,
        reg_tokens=4,
        no_embed_class=True,
    ),
    "DINOv3": kind(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        dinov3("vit_small_patch16_dinov3_qkvb"),
        {"num_register_tokens": 4},
    ),
    "DINOv3, gated": kind(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        dinov3("vit_huge_plus_patch16_dinov3_qkvb"),
        {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "CLIP": kind(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        VisionTransformer,
        pre_norm=True,
        act_layer=QuickGELU,
        norm_layer=nn.LayerNorm,
    ),
    "SigLIP": kind(
        "SiglipVisionModel",
        "SiglipVisionConfig",
        VisionTransformer,
        class_token=False,
        global_pool="map",
        act_layer="gelu_tanh",
    ),
}
EVERY = pytest.mark.parametrize("name", KINDS)


def pair(name: str) -> tuple[Any, Any]:
    """A small model of transformers with values that all matter, and timm's model of its shape."""
    model, config, build, more, own = KINDS[name]
    torch.manual_seed(0)
    shape = {**SIZE, **SHAPE, **more}
    theirs = getattr(transformers, model)(getattr(transformers, config)(**shape)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    return theirs, build(**(TIMM | own)).eval()


def answer(name: str, theirs: Any, images: Tensor) -> Tensor:
    """Finished tokens of theirs; of CLIP, whose last norm sees the CLS token alone, that one."""
    tower = getattr(theirs, "vit", theirs)
    found = tower(pixel_values=images)
    if name != "CLIP":
        return found.last_hidden_state
    return theirs.vision_model(pixel_values=images).pooler_output


@EVERY
@pytest.mark.parametrize("saved", ["as on the hub", "as in memory"])
@torch.no_grad()
def test_timms_model_answers_as_theirs_does(name: str, saved: str, tmp_path: Path) -> None:
    theirs, vit = pair(name)
    file = tmp_path / "model.safetensors"
    if saved == "as on the hub":
        theirs.save_pretrained(tmp_path)
    else:
        theirs.config.save_pretrained(tmp_path)
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, file)
    load_weights(vit, file, "vit")
    images = torch.randn(2, 3, 32, 32)
    found, expected = vit.forward_features(images), answer(name, theirs, images)
    torch.testing.assert_close(found[:, 0] if name == "CLIP" else found, expected, rtol=1e-4, atol=1e-4)
    if name == "SigLIP":
        pooled = theirs(pixel_values=images).pooler_output
        torch.testing.assert_close(vit.forward_head(found, pre_logits=True), pooled, rtol=1e-4, atol=1e-4)


def test_a_key_that_no_one_knows_is_named(tmp_path: Path) -> None:
    theirs, vit = pair("ViT")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"vit.embeddings.colour_tokens": torch.zeros(1, 2, 32)}, file)
    with pytest.raises(VptError, match=r"left-over keys: embeddings\.colour_tokens"):
        load_weights(vit, file, "vit")


def test_the_text_tower_of_a_pair_is_left_out(tmp_path: Path) -> None:
    theirs, vit = pair("CLIP")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    text = {"text_model.embeddings.token_embedding.weight": torch.zeros(9, 32), "logit_scale": torch.zeros(())}
    save_file(load_file(file) | text, file)
    load_weights(vit, file, "vit")


def test_weights_of_another_activation_are_refused(tmp_path: Path) -> None:
    theirs, _ = pair("CLIP")
    theirs.save_pretrained(tmp_path)
    plain = VisionTransformer(**TIMM, pre_norm=True, norm_layer=nn.LayerNorm)
    with pytest.raises(
        VptError, match=r"trained with quick_gelu by the config\.json beside it, and the encoder has gelu"
    ):
        load_weights(plain, tmp_path / "model.safetensors", "vit")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gelu"}))
    load_weights(plain, tmp_path / "model.safetensors", "vit")
    config.unlink()
    with pytest.warns(VptWarning, match="do not say which GELU they were trained with"):
        load_weights(plain, tmp_path / "model.safetensors", "vit")


def test_biases_of_dinov3_that_are_zero_are_left_out_of_a_model_without_them_and_others_refused(tmp_path: Path) -> None:
    theirs, _ = pair("DINOv3")
    plain = timm.create_model("vit_small_patch16_dinov3", **TIMM)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(VptError, match=r"left-over keys: .*q_bias"):
        load_weights(plain, tmp_path / "model.safetensors", "vit")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith(("q_proj.bias", "v_proj.bias")):
                parameter.zero_()
    theirs.save_pretrained(tmp_path)
    load_weights(plain, tmp_path / "model.safetensors", "vit")


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("ViT", {"num_heads": 4}, "trained with 2 heads by the config.json beside it, and the encoder has 4"),
        (
            "SigLIP",
            {"act_layer": nn.GELU},
            "trained with gelu_pytorch_tanh by .*, and the encoder has gelu; choose",
        ),
    ],
)
def test_what_no_shape_tells_is_compared_with_the_config(name: str, wrong: Any, said: str, tmp_path: Path) -> None:
    theirs, _ = pair(name)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(VptError, match=said):
        load_weights(VisionTransformer(**(TIMM | KINDS[name][4] | wrong)), tmp_path, "vit")


def test_biases_of_the_official_dinov3_are_not_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """timm leaves them out where its model has none; those that are not zero would be missed in silence."""
    vit = dinov3("vit_small_patch16_dinov3")(**TIMM).eval()
    official = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    state = {}
    for key, value in vit.state_dict().items():
        for timms, theirs in official.items():
            key = key.replace(timms, theirs)
        state[key] = value.clone()
    for value, fits in ((0.0, True), (0.5, False)):
        bias = torch.cat([torch.full((32,), value), torch.ones(32), torch.zeros(32)])  # that of keys is masked
        save_file(state | {f"blocks.{i}.attn.qkv.bias": bias.clone() for i in range(2)}, tmp_path / "dino.safetensors")
        if fits:
            load_weights(vit, tmp_path / "dino.safetensors", "vit")
            continue
        with pytest.raises(VptError, match=r"left-over keys: blocks\.0\.attn\.qkv\.bias.*with qkvb in its name"):
            load_weights(vit, tmp_path / "dino.safetensors", "vit")
    assert capsys.readouterr().out == ""


def test_a_projection_of_another_width_and_a_bias_of_one_block_are_named(tmp_path: Path) -> None:
    theirs, ours = pair("ViT")
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    query = next(key for key in state if re.search(r"1\..*(?:query|q_proj)\.weight$", key))
    bias = re.sub(
        r"(?:query|q_proj)\.weight$", lambda found: found[0].replace("query", "key").replace("q_", "k_"), query
    )
    bias = bias.replace("weight", "bias")
    changes = {"blocks.1.attn.q.weight": (state | {query: torch.ones(32, 16)}), "blocks.1.attn.q.bias": dict(state)}
    del changes["blocks.1.attn.q.bias"][bias]
    for said, changed in changes.items():
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(VptError, match=rf"does not fit ViT: .*left-over keys: .*{re.escape(said)}"):
            load_weights(ours, tmp_path / "model.safetensors", "ViT")

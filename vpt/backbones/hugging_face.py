"""Weights of `transformers`' vision towers in timm's names: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP.

Every key is told what becomes of it: renamed, joined with its siblings, left out as the pretraining's own, or kept as
it is for `require_fit` to name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import GELU, GELUTanh, QuickGELU
from timm.models.eva import Eva
from torch import Tensor, nn

from vpt.backbones.renames import Renames, renamed, under_names
from vpt.errors import VptError, VptWarning
from vpt.files import read_object

MARK = re.compile(r"(?:^|\.)embeddings\.patch_embeddings?\.")  # in the names of all of them, and of no one else
TOWERS = re.compile(r"^(?:(?:vit|deit|dinov2|dinov2_with_registers|dinov3_vit|vision_model|model)\.)+")
PRETRAINING = re.compile(  # its own tasks, and the text tower of a pair
    r"^(?:classifier|cls_classifier|distillation_classifier|pooler|decoder|visual_projection|text_model|text_projection"
    r"|logit_scale|logit_bias)(?:\.|$)|^embeddings\.(?:mask_token|position_ids)$"
)
RENAMES: Renames = (
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.(?:position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.(?:patch_embeddings\.projection|patch_embeddings|patch_embedding)\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(?:attention\.attention|attention|self_attn)\.(?:query|q_proj)\.", ".attn.q."),
    (r"\.(?:attention\.attention|attention|self_attn)\.(?:key|k_proj)\.", ".attn.k."),
    (r"\.(?:attention\.attention|attention|self_attn)\.(?:value|v_proj)\.", ".attn.v."),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", r"\1.mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
GELUS = {"gelu": "gelu", "quick_gelu": "quick_gelu"} | dict.fromkeys(
    ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh"), "gelu_pytorch_tanh"
)
JOINED = re.compile(r"^(.*\.attn)\.([qkv])\.(weight|bias)$")


def timms_names(state: dict[str, Tensor], vit: Any, path: Path) -> dict[str, Tensor]:
    """A vision tower's tensors under the names that timm's `vit` has; a state of anyone else's as it is.

    Raises:
        VptError: config.json beside the weights names another activation, or other heads, than those of `vit`.
    """
    if not any(MARK.search(key) for key in state):
        return state
    _require_same_model(state, vit, path)
    towers = under_names(state.items(), lambda key: TOWERS.sub("", key), path)
    own = ((key, value) for key, value in towers.items() if not PRETRAINING.match(key))
    named = under_names(own, lambda key: renamed(key, RENAMES), path)
    gated = any(".mlp.gate_proj." in key for key in named)
    named = {re.sub(r"\.mlp\.up_proj\.", ".mlp.fc1_x." if gated else ".mlp.fc1.", key): v for key, v in named.items()}
    named = {key.replace(".mlp.gate_proj.", ".mlp.fc1_g."): value for key, value in named.items()}
    if isinstance(vit, Eva):
        named = {re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", key): value for key, value in named.items()}
    shaped = {key: _shaped(key, value) for key, value in named.items() if value.numel()}
    found = joined(_pooling(_placed(shaped, vit)), isinstance(vit, Eva))
    wanted = vit.state_dict()
    return {key: value for key, value in found.items() if key in wanted or not _is_no_bias(key, value)}


def _is_no_bias(key: str, value: Tensor) -> bool:
    """DINOv3's biases of queries and values, all zero, which timm's models without `qkvb` in their names leave out."""
    return key.endswith(("q_bias", "v_bias")) and not value.any()


def _placed(state: dict[str, Tensor], vit: Any) -> dict[str, Tensor]:
    """Where timm's positions are those of patches alone, the CLS token's is added to it once."""
    if not getattr(vit, "no_embed_class", False) or not {"cls_token", "pos_embed"} <= state.keys():
        return state
    first, others = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    return state | {"cls_token": state["cls_token"] + first, "pos_embed": others}


def _shaped(key: str, value: Tensor) -> Tensor:
    """Tokens and positions (1, N, C), of which some are kept as (C,) or (N, C)."""
    return value.reshape(1, -1, value.shape[-1]) if key in ("cls_token", "pos_embed") else value


def joined(state: Mapping[str, Tensor], biases_apart: bool, keys_may_lack: bool = True) -> dict[str, Tensor]:
    """Queries, keys and values in one projection; what makes none is left as it is, for `require_fit` to name.

    keys_may_lack: a bias, which is then zero, if those of all blocks do (BEiT, DINOv3).
    """
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := JOINED.match(key):
            parts.setdefault((match[1], match[3]), {})[match[2]] = value
        else:
            found[key] = value
    biases = [each for (_, kind), each in parts.items() if kind == "bias"]
    lacking = keys_may_lack and all(each.keys() == {"q", "v"} for each in biases)
    for (stem, kind), each in parts.items():
        if kind == "bias" and biases_apart:
            found |= {f"{stem}.{part}_bias": value for part, value in each.items()}
            continue
        if kind == "bias" and lacking:
            each["k"] = torch.zeros_like(each["q"])
        if len(each) == 3 and len({value.shape[1:] for value in each.values()}) == 1:
            found[f"{stem}.qkv.{kind}"] = torch.cat([each[part] for part in "qkv"])
        else:
            found |= {f"{stem}.{part}.{kind}": value for part, value in each.items()}
    return found


def _pooling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP's pooling, whose query is projected apart from keys and values in timm."""
    found = dict(state)
    for kind in ("weight", "bias"):
        if (whole := found.pop(f"head.attention.in_proj_{kind}", None)) is not None:
            query, *others = whole.chunk(3)
            found |= {f"attn_pool.q.{kind}": query, f"attn_pool.kv.{kind}": torch.cat(others)}
    return found


def _require_same_model(state: Mapping[str, Tensor], vit: Any, path: Path) -> None:
    """What no shape tells, config.json does where it lies beside the weights: the GELU, and the number of heads."""
    said = vision_config(path)
    if (kind := _activation(said)) is None and any("pre_layrnorm" in key for key in state):
        warnings.warn(
            f"{path}: CLIP's weights do not say which GELU they were trained with, and no config.json lies beside "
            f"them; the encoder's is {_gelu_of(vit)}: is that theirs?",
            VptWarning,
            stacklevel=2,
        )
    own = _gelu_of(vit)
    if kind is not None and own is not None and kind != own:
        hint = {"quick_gelu": "choose a backbone of timm's with quickgelu in its name"}.get(
            kind, "choose a backbone of timm's without quickgelu in its name"
        )
        raise VptError(
            f"{path}: trained with {kind} by the config.json beside it, and the encoder has {own}; "
            f"{hint if 'quick_gelu' in (kind, own) else 'choose the backbone that these weights belong to'}"
        )
    heads, found = said.get("num_attention_heads"), getattr(getattr(vit.blocks[0], "attn", None), "num_heads", None)
    if isinstance(heads, int) and found is not None and heads != found:
        raise VptError(
            f"{path}: trained with {heads} heads by the config.json beside it, and the encoder has {found}; choose the "
            "backbone that these weights belong to"
        )


def vision_config(weights: Path) -> dict[str, Any]:
    """What the config.json of `transformers` beside a file of weights says of the vision tower; {} where none is."""
    content = read_object(weights.parent / "config.json")
    vision = content.get("vision_config")
    return {"model_type": content.get("model_type"), **(vision if isinstance(vision, dict) else content)}


def _activation(said: Mapping[str, Any]) -> str | None:
    found = said.get("hidden_act")
    if found is None and said.get("model_type") in ("clip", "clip_vision_model"):
        return "quick_gelu"  # its default, which transformers does not write down
    return GELUS.get(found) if isinstance(found, str) else None


def _gelu_of(vit: Any) -> str | None:
    """Which GELU the MLPs have; None where it is no GELU that could be another."""
    act = getattr(getattr(vit.blocks[0], "mlp", None), "act", None)
    if isinstance(act, QuickGELU):
        return "quick_gelu"
    if isinstance(act, GELUTanh) or (isinstance(act, nn.GELU) and act.approximate == "tanh"):
        return "gelu_pytorch_tanh"
    return "gelu" if isinstance(act, GELU | nn.GELU) else None

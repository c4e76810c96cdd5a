"""Why a model of timm's is not taken apart, by the name of its class or of a part of it."""

from __future__ import annotations

from torch import nn

from vpt.errors import VptError

CHANNELS = "it attends between channels, in which a prompt beside the patches is no key"
FEWER = "its keys are of patches that a convolution has made fewer"
CONVOLUTIONS = "it is made of convolutions, which attend to nothing"
LINEAR = "its attention is linear, a sum over all keys without a softmax"
PROJECTED = "it ends in a projection into a language model; its name without _enc is the encoder alone"
REASONS = {
    "Diff": "its attention is the difference of two",
    "NaFlexVit": "images of several sizes are packed into one sequence",
    "Cait": "its class token attends in blocks of its own",
    "MaxxVit": "it attends between convolutions, within windows and then over a grid of their places",
    "ResNet": CONVOLUTIONS,
    "ConvNeXt": CONVOLUTIONS,
    "TinyVit": "it is known as Segment Anything's encoder only (lite_medsam, mobile_sam)",
    "VisionTransformerSAM": "it has no neck, as all weights of Segment Anything have",
    "Qwen3VitEncoder": PROJECTED,
    "DeepseekVitEncoder": PROJECTED,
    "Gemma4": "its queries, keys and values are normed and turned, and its branches normed, in a way of its own",
    "PoolingVisionTransformer": "its patches are pooled by convolutions between stages, apart from its class token",
    "Levit": "its keys are narrower than its values, and normed over the batch",
    "MultiScaleVit": "its keys and values are pooled by convolutions over their places",
    "PyramidVisionTransformer": FEWER,
    "Twins": FEWER,
    "Xcit": CHANNELS,
    "DaVit": CHANNELS,
    "EdgeNeXt": CHANNELS,
    "VOLO": "its first blocks weigh neighbours without any keys",
    "CrossVit": "two branches of patches exchange their class tokens",
    "CoaT": LINEAR,
    "EfficientVitMsra": "its heads attend one after another, each within a part of the channels",
    "EfficientVit": LINEAR,
    "ConVit": "its scores are mixed with those of positions alone",
    "TNT": "each of its patches has tokens within",
    "GlobalContextVit": "the queries of half of its blocks are of the whole image",
    "Nest": "its patches attend within blocks that convolutions join",
}


def refusal(model: nn.Module, found: str, name: str) -> VptError:
    """found: its class, with what is odd in it."""
    why = next((why for kind, why in REASONS.items() if kind in found), None) or _by_its_parts(model)
    return VptError(
        f"backbone {name}: {found} is not supported, since {why}; choose a timm VisionTransformer of its usual blocks, "
        "for example vit_small_patch16_224, deit3_base_patch16_224, vit_base_patch14_reg4_dinov2, "
        "swin_tiny_patch4_window7_224, or the embedded vit_micro"
    )


def _by_its_parts(model: nn.Module) -> str:
    names = {type(part).__name__ for part in model.modules()}
    attends = any("Attention" in name or "Attn" in name for name in names)
    return "its attention is of a form that is not taken apart here" if attends else "nothing in it attends to tokens"

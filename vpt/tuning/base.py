"""A control's section, and the parts of an encoder that tuning reaches for.

timm's ViT and SAM's encoder name them alike:

`patch_embed`, then `blocks[i]` with `attn.qkv`, `attn.proj` and `mlp`, then `norm` and, of a mean of patches, `fc_norm`
(ViT) or `neck` (SAM).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from vpt.backbones.base import Backbone
from vpt.model import PromptedModel
from vpt.sections import Choice, Compared

PARTS = ("patch_embed", "norm_pre", "blocks", "norm", "fc_norm", "neck")  # what tokens pass through; not timm's head
OF_POSITIONS = (".cpb_mlp.", ".meta_mlp.")  # of Swin v2: from where patches lie to biases, no token passes through


class TuningSettings(Choice):
    """What trains besides prompts and head: nothing of the backbone, or, as a control, some or all of it.

    Every one sets `requires_grad`, and may add modules to the backbone. The backbone stays in eval mode, and
    `PromptedModel.trained` names what trains.
    """

    method: str

    def apply(self, model: PromptedModel) -> None:
        """Called once, on a model as it was built."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"method"})


def compared(name: str, shown: str, rate: float, **settings: Any) -> Compared:
    """A row of `vpt compare`; rate: around which that of the backbone is searched, the method's own."""
    return Compared(name, shown, settings, rate)


def encoder_of(backbone: Backbone) -> Any:
    """timm's or SAM's own module inside a backbone."""
    (encoder,) = backbone.children()
    return encoder


def last_of(backbone: Backbone) -> list[nn.Module]:
    """What follows the blocks: SAM's neck, or a ViT's final norm and the one of its pooled tokens, of which a model has
    either or both."""
    encoder = encoder_of(backbone)
    return [getattr(encoder, part) for part in ("neck", "norm", "fc_norm") if hasattr(encoder, part)]


def layers(backbone: Backbone) -> dict[str, Any]:
    """Name in the backbone -> every linear map, convolution and norm that tokens pass through, in the module's order.

    They are the modules with a parameter `weight`, whose first axis is the width of what they put out.
    """
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter)
        and name.split(".")[1] in PARTS
        and not any(part in name for part in OF_POSITIONS)
    }

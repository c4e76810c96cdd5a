"""Batch norms of a frozen encoder, folded into the convolutions before them: the same function with a pass less."""

from __future__ import annotations

from timm.models.tiny_vit import ConvNorm
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module) -> None:
    """Replace every convolution with a batch norm in `module`, which is in eval mode, by one convolution with a bias.

    Its weights are w * gain / deviation, its bias is that of the norm less gain * mean / deviation; the output is the
    same up to rounding.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvNorm):
                setattr(parent, name, fuse_conv_bn_eval(child.conv, child.bn))

"""Adapter over Segment Anything's `ImageEncoderViT`: its own modules and weights, only attention is re-routed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from vpt.backbones.attention import asked_apart
from vpt.backbones.base import (
    Backbone,
    BackboneSpec,
    BlockAttention,
    Level,
    require_whole_patches,
    uniform_blocks,
    whole_patches,
)
from vpt.backbones.feed_forward import feed_forward
from vpt.backbones.pieces import normalise
from vpt.backbones.sam_attention import Arithmetic, attend, attend_apart
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.vocabulary import Padding


class SamDecoder(nn.Module):
    """What a SAM checkpoint holds besides its encoder: the prompt encoder and the mask decoder, as they were trained.

    `trained` is False where they are random, and so have to be trained whole as a head; `pyramid` (SAM 2's) makes the
    image's embedding of several levels of the encoder, where it is not the encoder's own output.
    """

    def __init__(
        self,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        *,
        trained: bool,
        pyramid: nn.Module | None = None,
    ):
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.pyramid = pyramid
        self.trained = trained

    def resize(self, image_size: tuple[int, int], grid: tuple[int, int]) -> None:
        """Set it to images (height, width) in pixels, whose embedding has (rows, columns)."""
        self.prompt_encoder.input_image_size = image_size
        self.prompt_encoder.image_embedding_size = grid
        self.prompt_encoder.mask_input_size = (4 * grid[0], 4 * grid[1])


class SamBackbone(Backbone):
    """SAM's image encoder (Kirillov et al., ICCV 2023; ViTDet's blocks) with a place for prompts.

    Blocks whose `window_size` is not 0 attend in windows. Prompts that are keys and values only are shared by all
    windows; travelling prompts are copied into the windows and averaged after them, once per block, before their MLP.
    A window that reaches over the border is padded with zeros after the norm, and the padding is attended to, as in the
    original.

    Args:
        encoder: the model in its native size.
        decoder: of the same checkpoint, for `SamDecoderHead`; None where the checkpoint has none.
        name: what the user calls it.
        mean, std, padding: preprocessing of an RGB image in [0, 1] that the weights were trained with.
        sha256: identity of the weights (`vpt.backbones.weights.sha256_of`).
        image_size: (height, width) in pixels; position embeddings are resized to it (bicubic, antialiased, as timm
            does). Tables of relative positions are resized whenever they are used, as the original does.
        attention: "fused", or "original": SAM's own arithmetic, and its own blocks where there are no prompts.

    Raises:
        VptError: a size that is no multiple of the patch.
    """

    def __init__(
        self,
        encoder: ImageEncoderViT,
        decoder: SamDecoder | None,
        *,
        name: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        padding: Padding,
        sha256: str,
        image_size: tuple[int, int],
        attention: Arithmetic = "fused",
    ):
        super().__init__()
        self.encoder = encoder.eval()
        self._decoder = (decoder,)  # in a tuple, so that it is no part of the encoder: heads copy what they need
        self.sha256 = sha256
        self.attention = attention
        blocks: Any = encoder.blocks
        kernel: Any = encoder.patch_embed.proj
        patch, neck = kernel.kernel_size, encoder.neck[0].out_channels
        grid = (image_size[0] // patch[0], image_size[1] // patch[1])
        windowed = [i for i, block in enumerate(blocks) if block.window_size > 0]
        self.spec = BackboneSpec(
            name=name,
            image_size=image_size,
            patch=patch,
            prefix=0,
            mean=mean,
            std=std,
            padding=padding,
            blocks=uniform_blocks(len(blocks), kernel.out_channels, blocks[0].attn.num_heads, grid, windowed),
            finished=Level(neck, grid),
        )
        self._resize()

    @property
    def decoder(self) -> SamDecoder | None:
        return self._decoder[0]

    def _resize(self) -> None:
        size, grid = self.spec.image_size, self.spec.finished.grid
        require_whole_patches(size, self.spec.patch, self.spec.name)
        if self.encoder.pos_embed is not None:
            resized = resample_abs_pos_embed_nhwc(self.encoder.pos_embed.detach(), list(grid))
            self.encoder.pos_embed = nn.Parameter(resized)
        self.encoder.img_size = size[0]
        if self.decoder is not None:
            self.decoder.resize(size, grid)

    def takes(self, size: tuple[int, int]) -> bool:
        return whole_patches(size, self.spec.patch) if self.encoder.pos_embed is None else size == self.spec.image_size

    def embed(self, images: Tensor) -> Tokens:
        grid = self.encoder.patch_embed(images)
        if self.attention == "fused":  # else every sum keeps the channels first in memory, and every norm copies
            grid = grid.contiguous()
        if self.encoder.pos_embed is not None:
            grid = grid + self.encoder.pos_embed
        return Tokens.of_grid(grid)

    def patches(self, images: Tensor) -> Tensor:
        return self.encoder.patch_embed(images)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.encoder.blocks[i]
        travelling = tokens.prompts.shape[1] > 0
        if self.attention == "original" and context is None and not travelling:
            return replace(tokens, grid=block(tokens.grid))
        prompts = block.norm1(tokens.prompts) if travelling else tokens.prompts
        projected = self.project(i, context) if isinstance(context, Tensor) else context
        beside = projected if isinstance(projected, KeysValues) else None
        patches, prompts = attend(
            block.attn, normalise(block.norm1, tokens.grid), prompts, beside, self.attention, block.window_size
        )
        return replace(
            tokens,
            grid=_residual(block, tokens.grid, patches, context),
            prompts=_residual(block, tokens.prompts, prompts, context) if travelling else tokens.prompts,
        )

    def attention_of(self, i: int) -> BlockAttention:
        block: Any = self.encoder.blocks[i]
        return BlockAttention(block.norm1, block.attn.qkv, block.attn.num_heads)

    def finish(self, tokens: Tokens) -> Features:
        return Features(grid=self.encoder.neck(tokens.grid.permute(0, 3, 1, 2)), prefix=tokens.prefix)


def _residual(block: Any, tokens: Tensor, attended: Tensor, context: Context | None) -> Tensor:
    """The rest of a block after its self-attention, for tokens (B, ..., C).

    Attention to a separate context is each token's own affair, so windows make no difference to it.
    """
    tokens = tokens + attended
    if isinstance(context, SeparateContext):
        tokens = tokens + attend_apart(block.attn, *asked_apart(block.norm1, tokens, context))
    return tokens + feed_forward(block.mlp, normalise(block.norm2, tokens))

"""Segment Anything's mask decoder as the head: one token per class in the place of its mask tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings, Rows
from vpt.heads.mask import convolution
from vpt.sections import Compared, require_whole

Tune = Literal["auto", "tokens", "upscaling", "decoder"]
RATE = 5e-4  # of the head alone, its decoder being pretrained; from random values 2e-3 is better (docs/results)
DETAIL = 16  # channels of the refinement
LEAST_HINTS = 3  # hints are filled up with "nothing" to this number, in training and after
MOST_QUERIES = 4096  # as many as SAM's encoder has patches


class SamDecoderConfig(HeadSettings):
    """See `SamDecoderHead`."""

    kind: Literal["sam_decoder"] = "sam_decoder"
    """SAM's own mask decoder; it needs no box and no point."""
    tune: Tune = "auto"
    """What of it trains: "tokens" (class tokens, kernels, queries, refinement), "upscaling" (that too), "decoder" (all
    of it), "auto" (upscaling where the decoder is pretrained, else all).
    """
    queries: int | None = Field(None, ge=0, le=MOST_QUERIES)
    """Learned query tokens in the place of a box and points; null: 2 where the decoder is pretrained, else 0."""
    refine: bool = True
    """Convolutions of image and logits at full resolution, added to the logits."""
    hints: bool = False
    """Trained to take boxes and points as well, through SAM's own prompt encoder."""

    tasks = ("segmentation",)
    own_rate = RATE
    compared = (Compared("sam_decoder", "SAM decoder only", {}, RATE, aside=True),)

    def build(self, backbone: Any, answer: Answer) -> SamDecoderHead:
        return SamDecoderHead(backbone, classes=answer.classes, **self.arguments())


class SamDecoderHead(Head):
    """Features and normalised images (B, 3, H, W) -> logits (B, classes, H, W).

    Kirillov et al., ICCV 2023, appendix A; of SAM 2 Ravi et al., 2024. SAM's decoder asks for one object at a time;
    here every class, background included, has a token and a small network that makes of it a kernel over the upscaled
    grid, and classes compete by softmax. No box or point is needed. Tokens and networks start from SAM's own for a
    single mask, the background from logits of zero: what SAM's first mask token gives, from as many copies of it as
    there are classes, is the start.

    Learned query tokens stand in the place of the box that SAM is asked with: the first two start as the corners of a
    box around the whole image, any others from its token for "no point".

    Args:
        backbone: whose checkpoint the decoder is taken from (copied; the backbone keeps its own); classes: labels
            including background;
        tune: "tokens" trains class tokens, kernels, queries and refinement and leaves the two-way transformer and the
            upscaling as they were trained; "upscaling" trains that as well, "decoder" everything; "auto" is upscaling
            where the decoder was trained, else decoder; SAM 2's pyramid trains with the last alone;
        queries: how many; None is 2 where the decoder was trained, else 0;
        refine: convolutions of the image and the logits at full resolution, added to the logits, zero at the start;
        hints: take boxes and points through SAM's own prompt encoder, see `Head.forward`.

    Raises:
        VptError: a backbone that is not SAM's, or has no decoder; "tokens" with a decoder that no one has trained.
    """

    rows = (
        Rows("class_tokens"),
        Rows("refine.both.0.weight", axis=1, first=DETAIL),
        Rows("refine.out.weight"),
        Rows("refine.out.bias"),
    )
    modules_of_rows = ("kernels",)

    def __init__(
        self,
        backbone: Any,
        *,
        classes: int,
        tune: Tune = "auto",
        queries: int | None = 0,
        refine: bool = True,
        hints: bool = False,
    ):
        super().__init__()
        require_whole("head", classes=classes)
        require_whole("head", least=0, queries=0 if queries is None else queries)
        found = _decoder_of(backbone, tune)
        if tune == "auto":
            tune = "upscaling" if found.trained else "decoder"
        if queries is None:
            queries = 2 if found.trained else 0
        decoder: Any = copy.deepcopy(found.mask_decoder)
        prompt_encoder: Any = copy.deepcopy(found.prompt_encoder)
        self.takes_hints = hints
        self.image_size = backbone.spec.image_size
        self.transformer = decoder.transformer
        self.upscale = decoder.output_upscaling
        self.quality_token = decoder.iou_token  # no quality is predicted, but the transformer was trained with it
        self.presence_token = getattr(decoder, "obj_score_token", None)  # likewise, of SAM 2
        self.pyramid: Any = copy.deepcopy(found.pyramid)
        self.levels = () if self.pyramid is None else self.pyramid.levels
        self.details: Any = None if self.pyramid is None else nn.ModuleList([decoder.conv_s1, decoder.conv_s0])
        self.positions = prompt_encoder.pe_layer
        self.no_mask = prompt_encoder.no_mask_embed
        if hints:
            self.hint_kinds: Any = nn.ModuleList([prompt_encoder.not_a_point_embed, *prompt_encoder.point_embeddings])
        for part in self.children():
            part.requires_grad_(tune == "decoder")
        for learned in (self.upscale, self.details):
            if learned is not None:
                learned.requires_grad_(tune != "tokens")
        self.queries = nn.Parameter(_start_of_queries(prompt_encoder, queries)) if queries else None
        self.class_tokens = nn.Parameter(decoder.mask_tokens.weight.detach()[:1].repeat(classes, 1))
        single = decoder.output_hypernetworks_mlps[0].requires_grad_(True)
        kernels: list[Any] = [copy.deepcopy(single) for _ in range(classes)]
        _set_to_zero(kernels[0].layers[-1])
        self.kernels = nn.ModuleList(kernels)
        self.refine = _Refinement(classes) if refine else None

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        grid, finer = (features.grid, ()) if self.pyramid is None else self.pyramid(features.levels)
        first = [token.weight for token in (self.presence_token, self.quality_token) if token is not None]
        asked = [] if self.queries is None else [self.queries]
        tokens = torch.cat([*first, self.class_tokens, *asked]).expand(len(grid), -1, -1)
        if self.takes_hints:
            tokens = torch.cat([tokens, self.embed_hints(hints, len(grid))], dim=1)
        positions = self.positions(grid.shape[-2:]).expand_as(grid)
        tokens, source = self.transformer(grid + self.no_mask.weight[:, :, None, None], positions, tokens)
        upscaled = self._upscaled(source.transpose(1, 2).reshape(grid.shape), finer)
        kernels = torch.stack([kernel(tokens[:, k]) for k, kernel in enumerate(self.kernels, len(first))], dim=1)
        logits = torch.einsum("bkc,bchw->bkhw", kernels, upscaled)
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits if self.refine is None else logits + self.refine(images, logits)

    def _upscaled(self, grid: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) -> (B, C / 8, 4 H, 4 W); finer: of SAM 2, grids of twice and four times the resolution."""
        if not finer:
            return self.upscale(grid)
        double, norm, activation, double_again, last = self.upscale
        first, second = (detail(each) for detail, each in zip(self.details, finer, strict=True))
        return last(double_again(activation(norm(double(grid) + first))) + second)

    def start_from(self, learned: Self, rows: Sequence[int | None]) -> None:
        """See `Head.start_from`; the refinement of labels that are there already does not see those that are new."""
        if self.refine is not None:
            _set_to_zero(self.refine.both[0])
        super().start_from(learned, rows)

    def embed_hints(self, hints: Tensor | None, batch: int) -> Tensor:
        """(B, N, 3) or None -> tokens (B, at least 3, C), as SAM's prompt encoder makes them."""
        missing = LEAST_HINTS - (0 if hints is None else hints.shape[1])
        nothing = self.class_tokens.new_tensor([0.0, 0.0, -1.0]).expand(batch, max(0, missing), 3)
        hints = nothing if hints is None else torch.cat([hints, nothing.to(hints.dtype)], dim=1)
        kinds = hints[..., 2].long()
        places = self.positions.forward_with_coords(hints[..., :2] + 0.5, self.image_size)
        table = torch.cat([kind.weight for kind in self.hint_kinds])
        return table[kinds + 1] + places * (kinds >= 0).unsqueeze(-1)


class _Refinement(nn.Module):
    """Images (B, 3, H, W) and logits (B, K, H, W) -> what to add to the logits; zero at the start."""

    def __init__(self, classes: int, width: int = DETAIL):
        super().__init__()
        self.image = convolution(3, width)
        self.both = convolution(width + classes, width)
        self.out = nn.Conv2d(width, classes, 1)
        _set_to_zero(self.out)

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        return self.out(self.both(torch.cat([self.image(images), logits], dim=1)))


def _start_of_queries(prompt_encoder: Any, count: int) -> Tensor:
    """Tokens (count, C) as SAM's prompt encoder makes them of a box around the whole image."""
    height, width = prompt_encoder.input_image_size
    corners = torch.tensor([[[0.0, 0.0], [float(width), float(height)]]])
    first, last = (kind.weight.detach()[0] for kind in list(prompt_encoder.point_embeddings)[2:4])
    places = prompt_encoder.pe_layer.forward_with_coords(corners, (height, width))[0]
    nothing = prompt_encoder.not_a_point_embed.weight.detach()
    box = torch.stack([first, last]) + places.detach()
    return torch.cat([box, nothing.expand(max(0, count - 2), -1)])[:count].clone()


def _set_to_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _decoder_of(backbone: Any, tune: Tune) -> Any:
    if not hasattr(backbone, "decoder"):
        raise VptError(
            f"head: the SAM decoder needs a Segment Anything backbone, found {backbone.spec.name}; "
            "choose head.kind: mask, or a SAM backbone such as lite_medsam, sam_vit_b or sam2.1_hiera_tiny"
        )
    if backbone.decoder is None:
        raise VptError(
            f"head: the weights of {backbone.spec.name} hold an encoder only, no mask decoder; choose head.kind: mask, "
            "or a whole checkpoint such as sam_vit_b_01ec64.pth"
        )
    if tune in ("tokens", "upscaling") and not backbone.decoder.trained:
        raise VptError(
            f"head: tune: {tune} leaves the decoder as it is, but that of {backbone.spec.name} is random; "
            "choose head.tune: decoder"
        )
    return backbone.decoder

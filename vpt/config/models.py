"""Settings of what trains besides prompts: heads, and the controls in the backbone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vpt.config.section import Section
from vpt.vocabulary import Task


class MaskHeadConfig(Section):
    kind: Literal["mask"] = "mask"
    width: int = Field(64, ge=8, multiple_of=8)
    detail: int = Field(16, ge=8, multiple_of=8)
    levels: int = Field(4, ge=1)


class SamDecoderConfig(Section):
    """SAM's own mask decoder, see `vpt.heads.SamDecoderHead`. `hints`: trained to take boxes and points as well."""

    kind: Literal["sam_decoder"] = "sam_decoder"
    tune: Literal["tokens", "decoder"] = "decoder"
    refine: bool = True
    hints: bool = False


class LinearConfig(Section):
    """One linear layer on the CLS token or (`mean`) the mean of the patch tokens; `auto`: CLS where there is one."""

    kind: Literal["linear"] = "linear"
    pool: Literal["auto", "cls", "mean"] = "auto"


class MlpConfig(Section):
    """A hidden layer of `hidden` units before the linear one."""

    kind: Literal["mlp"] = "mlp"
    pool: Literal["auto", "cls", "mean"] = "auto"
    hidden: int = Field(256, ge=1)


HeadConfig = Annotated[MaskHeadConfig | SamDecoderConfig | LinearConfig | MlpConfig, Field(discriminator="kind")]
HEADS: dict[Task, tuple[str, ...]] = {
    "segmentation": ("mask", "sam_decoder"),
    "classification": ("linear", "mlp"),
}
"""The heads of each task, its default first."""
HEAD_RATES: dict[Task, float] = {"segmentation": 2e-3, "classification": 1e-2}


class PromptsAloneConfig(Section):
    """Prompts and head train, nothing of the backbone. For the other methods see `vpt.tuning`."""

    method: Literal["prompts"] = "prompts"


class FullConfig(Section):
    method: Literal["full"] = "full"


class BiasConfig(Section):
    method: Literal["bias"] = "bias"


class PartialConfig(Section):
    method: Literal["partial"] = "partial"
    blocks: int = Field(1, ge=1)


class SsfConfig(Section):
    method: Literal["ssf"] = "ssf"


class AdapterConfig(Section):
    """`width` null: 64, but a quarter of the encoder's width at most."""

    method: Literal["adapter"] = "adapter"
    width: int | None = Field(None, ge=1)
    scale: float = Field(0.1, gt=0)


class LoraConfig(Section):
    """Needs the extra `lora`."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha: int = Field(8, ge=1)


TuningConfig = Annotated[
    PromptsAloneConfig | FullConfig | BiasConfig | PartialConfig | SsfConfig | AdapterConfig | LoraConfig,
    Field(discriminator="method"),
]

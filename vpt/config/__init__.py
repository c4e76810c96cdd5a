"""Every setting of a run: frozen models, YAML in and out."""

from vpt.config.files import build_config, dump_config, load_config, parse_override, parse_prompts
from vpt.config.models import HEAD_RATES, HeadConfig, LinearConfig, MaskHeadConfig, SamDecoderConfig, TuningConfig
from vpt.config.prompts import (
    COUNTED,
    AdditiveConfig,
    ConditionedConfig,
    CrossConfig,
    DeepConfig,
    FourierConfig,
    GatedConfig,
    LowRankConfig,
    NoPromptsConfig,
    PromptsConfig,
    ShallowConfig,
)
from vpt.config.run import Config
from vpt.vocabulary import Task

__all__ = [
    "COUNTED",
    "HEAD_RATES",
    "AdditiveConfig",
    "ConditionedConfig",
    "Config",
    "CrossConfig",
    "DeepConfig",
    "FourierConfig",
    "GatedConfig",
    "HeadConfig",
    "LinearConfig",
    "LowRankConfig",
    "MaskHeadConfig",
    "NoPromptsConfig",
    "PromptsConfig",
    "SamDecoderConfig",
    "ShallowConfig",
    "Task",
    "TuningConfig",
    "build_config",
    "dump_config",
    "load_config",
    "parse_override",
    "parse_prompts",
]

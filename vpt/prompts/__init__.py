"""Prompt methods, one file each, with their sections of the config."""

from vpt.prompts.additive import AdditivePrompts
from vpt.prompts.base import Prompts
from vpt.prompts.conditioned import ConditionedPrompts
from vpt.prompts.cross import CrossPrompts
from vpt.prompts.deep import DeepPrompts
from vpt.prompts.fourier import FourierPrompts
from vpt.prompts.gated import GatedPrompts
from vpt.prompts.low_rank import LowRankPrompts
from vpt.prompts.shallow import ShallowPrompts
from vpt.prompts.starts.tokens import initialise

__all__ = [
    "AdditivePrompts",
    "ConditionedPrompts",
    "CrossPrompts",
    "DeepPrompts",
    "FourierPrompts",
    "GatedPrompts",
    "LowRankPrompts",
    "Prompts",
    "ShallowPrompts",
    "initialise",
]

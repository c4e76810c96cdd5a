"""Prompt methods, one file each, with their sections of the config."""

from vpt.prompts.additive import AdditivePrompts
from vpt.prompts.base import Prompts
from vpt.prompts.coda import CodaPrompts
from vpt.prompts.conditioned import ConditionedPrompts
from vpt.prompts.cross import CrossPrompts
from vpt.prompts.deep import DeepPrompts
from vpt.prompts.dualprompt import DualpromptPrompts
from vpt.prompts.fourier import FourierPrompts
from vpt.prompts.gated import GatedPrompts
from vpt.prompts.l2p import L2pPrompts
from vpt.prompts.low_rank import LowRankPrompts
from vpt.prompts.shallow import ShallowPrompts
from vpt.prompts.smope import SmopePrompts
from vpt.prompts.starts.tokens import initialise

__all__ = [
    "AdditivePrompts",
    "CodaPrompts",
    "ConditionedPrompts",
    "CrossPrompts",
    "DeepPrompts",
    "DualpromptPrompts",
    "FourierPrompts",
    "GatedPrompts",
    "L2pPrompts",
    "LowRankPrompts",
    "Prompts",
    "ShallowPrompts",
    "SmopePrompts",
    "initialise",
]

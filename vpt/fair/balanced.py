"""Groups drawn equally often: the plainest way to treat them alike."""

from __future__ import annotations

from typing import Literal

from vpt.fair.base import BalancedGroups


class BalancedConfig(BalancedGroups):
    method: Literal["balanced"] = "balanced"
    """Every group is drawn equally often."""

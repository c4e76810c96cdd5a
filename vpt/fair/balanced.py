"""Groups drawn equally often: the plainest way to treat them alike."""

from __future__ import annotations

from typing import ClassVar, Literal

from vpt.fair.base import FairSettings


class BalancedConfig(FairSettings):
    method: Literal["balanced"] = "balanced"
    """Every group is drawn equally often."""

    balances: ClassVar[bool] = True

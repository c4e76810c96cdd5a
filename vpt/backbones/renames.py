"""Names of weights, from one layout to another."""

from __future__ import annotations

import re

Renames = tuple[tuple[str, str], ...]
"""Pattern -> replacement, applied to a key one after the other."""


def renamed(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key

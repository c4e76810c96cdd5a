"""What older versions did where a setting did not exist yet: what they wrote is read as they meant it."""

from __future__ import annotations

from typing import Any

from vpt.sections import HEADS, PROMPTS, TUNINGS

# Section, name of the choice -> settings that version 0.2.0 brought, with the values that were in force before.
BEFORE: dict[tuple[str, str], dict[str, Any]] = {
    ("prompts", "cross"): {"normed": True},
    ("prompts", "fourier"): {"rounded": True},
    ("prompts", "conditioned"): {"dropout": 0.0},
    ("head", "sam_decoder"): {"queries": 0},
    ("tuning", "adapter"): {"normed": True, "dropout": 0.0},
}
KEYS = {"prompts": PROMPTS.key, "head": HEADS.key, "tuning": TUNINGS.key}


def as_written(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a whole config that a version wrote, with what was in force then for the settings it lacks."""
    values = dict(values)
    for (section, name), settings in BEFORE.items():
        key, chosen = KEYS[section], values.get(section)
        chosen = {key: chosen} if isinstance(chosen, str) else chosen
        if isinstance(chosen, dict) and chosen.get(key) == name:
            values[section] = settings | chosen
    return values

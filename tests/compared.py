"""What the trainings of a comparison leave, written down without training."""

from __future__ import annotations

import json
from pathlib import Path


def put(out: Path, method: str, seed: int, tested: dict[str, float], patients: dict[str, str] | None = None) -> None:
    """A final's result, as `vpt compare` writes it."""
    folder = out / method / f"seed-{seed}"
    folder.mkdir(parents=True)
    result = {
        "settings": {"optim.prompt_lr": 0.005, "optim.weight_decay": 0.0001},
        "seed": seed,
        "counts": {"trained": 12345, "prompts": 640, "head": 11705, "backbone": 0, "frozen": 10**6},
        "artifact_bytes": 51_000,
        "peak_memory": 2_000_000_000 + seed,
        "seconds": 10.0 + seed,
        "seconds_per_step": 0.25,
        "tested": tested,
        "patients": patients or {case: case for case in tested},
    }
    (folder / "result.json").write_text(json.dumps(result))


def scores(*values: float) -> dict[str, float]:
    return {f"case{k:02d}": value for k, value in enumerate(values)}

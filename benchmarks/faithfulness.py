"""Do the maps of class prompts and class queries show what an answer rests on? Deletion curves over many images.

    python benchmarks/faithfulness.py RUN [--images 48] [--side test]

Patches are hidden under the image's mean colour, 10 to 50 % of them, by what they add to the class that is answered
(evidence), by the attention of its prompt, or by the masks; beside that from the centre outwards (what any map of
things in the middle would do), and at random (five draws). Told is how far the score falls, mean over the shares and
the images; differences are paired by image, with the 95 % bootstrap interval over images.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import vpt
from vpt.artifact import read_artifact
from vpt.class_maps import class_attention, class_evidence
from vpt.engine.setup import read_data
from vpt.explaining import DRAWS, SHARES, hidden_in_order
from vpt.files import read_json, write_json
from vpt.progress import bar
from vpt.scores.bootstrap import bootstrap
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter
from vpt.use.watched import look_at

CONTROLS = {"random", "centre"}


@torch.no_grad()
def orders(answers: Classifier | Segmenter, image: Tensor) -> dict[str, list[Tensor]]:
    """Name -> maps (rows, columns), whose largest values are hidden first."""
    grid = answers.model.backbone.spec.finished.grid
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in grid), indexing="ij")
    found = {
        "centre": [-(rows**2 + columns**2)],
        "random": [torch.rand(grid, generator=generator) for _ in range(DRAWS)],
    }
    logits = answers.model(image)
    if isinstance(answers, Segmenter):
        return {"masks": [F.adaptive_avg_pool2d(1 - logits.softmax(1)[:, :1], grid)[0, 0]], **found}
    best = int(logits[0].argmax())
    attention = class_attention(answers.model, image)[0, best].mean(0)
    evidence = class_evidence(answers.model, image, lambda logits: logits.log_softmax(1)[:, best])[0].sum(0)
    return {"evidence": [evidence], "attention": [attention], **found}


def falls(answers: Classifier | Segmenter, scan: object) -> dict[str, float]:
    """How far the score of one image falls in each order, mean over the shares that are hidden."""
    seen = look_at(answers, scan, None, True)  # type: ignore[arg-type]
    with torch.no_grad():
        image = Normalise.of(answers.model)(seen.image)
        score, _ = seen.watch(answers.model(image))

    def fall(order: Tensor) -> float:
        whole, *hidden = hidden_in_order(answers.model, image, score, order, SHARES)
        return float(whole - np.mean(hidden))

    return {name: float(np.mean([fall(order) for order in some])) for name, some in orders(answers, image).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--side", default="test")
    parser.add_argument("--artifact", default="best.safetensors")
    parser.add_argument("--weights")
    told = parser.parse_args()
    path = told.run / told.artifact
    answers = vpt.load(path, "cpu", told.weights, "32-true")
    _, dataset = read_data(read_artifact(path).config)
    names = read_json(told.run / "splits.json")[told.side]
    chosen = np.random.default_rng(0).permutation(sorted(names))[: told.images]
    with bar("hiding") as tick:
        rows = []
        for name in chosen:
            images = dataset.case(name).images
            rows.append(falls(answers, images[0] if len(images) == 1 else images))
            tick(len(rows), len(chosen), name)
    report(told.run, rows)


def report(run: Path, rows: list[dict[str, float]]) -> None:
    falls_by = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name, values in falls_by.items():
        print(f"{name:10} {values.mean():+.3f}")
    for name, other in product(falls_by.keys() - CONTROLS, sorted(CONTROLS)):
        differences = falls_by[name] - falls_by[other]
        low, high = bootstrap(lambda weights, d=differences: {"d": weights.T @ d / weights.sum(0)}, len(differences))[
            "d"
        ]
        ahead = (differences > 0).mean()
        said = f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f}), larger in {ahead:.0%} of {len(rows)}"
        print(f"{name} minus {other}: {said}")
    write_json(run / "faithfulness.json", rows)


if __name__ == "__main__":
    main()

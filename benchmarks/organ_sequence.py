"""Liver (CT), lungs (X-ray) and breast tumours (ultrasound), segmented one task after another on one frozen encoder.

    python benchmarks/organ_sequence.py ../shared/data OUT --cases 48 12 24
    python benchmarks/organ_sequence.py ../shared/data OUT --backbone lite_medsam --weights FILE --size 256

draws so many training, validation and test images of each set (whole patients, a fixed seed), names their labels, and
runs `vpt continual` on them: docs/results has its table. What is finished in OUT is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vpt.cli.continual import table_of
from vpt.cli.shared import console
from vpt.continual import Protocol, run_protocol
from vpt.data.cases import SegmentationSet
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits

ORGANS = {"liver": "ct_liver2d", "lung": "cxr_lung", "tumour": "busi"}
SETTINGS: dict[str, Any] = {
    "train.augment": "none",
    "train.workers": 0,
    "device": "cpu",
}


def drawn(source: Path, out: Path, label: str, counts: tuple[int, ...]) -> Path:
    """A folder with links to some images of each side, and their masks, whose label has a name."""
    dataset = read_dataset(source, None, None)
    (value,) = [each for each in dataset.labels if each]
    sides = read_splits(dataset).to_dict()
    kept = {
        side: _whole_patients(dataset, sides[side], count)
        for side, count in zip(("train", "val", "test"), counts, strict=True)
    }
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True)
    for case in (dataset.case(name) for names in kept.values() for name in names):
        for file, folder in ((case.images[0], "images"), (case.label, "masks")):
            assert file is not None
            os.symlink(file.resolve(), out / folder / file.name)
    labels = {"background": 0, label: value}
    (out / "split.json").write_text(json.dumps(kept))
    (out / "dataset.json").write_text(json.dumps({"labels": labels}))
    return out


def _whole_patients(dataset: SegmentationSet, names: list[str], count: int) -> list[str]:
    """The cases of patients in an order that is drawn, up to so many."""
    patients = sorted({dataset.patient(name) for name in names})
    kept: list[str] = []
    for place in np.random.default_rng(0).permutation(len(patients)):
        kept += [name for name in names if dataset.patient(name) == patients[place]]
        if len(kept) >= count:
            break
    return kept[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, nargs=3, default=(48, 12, 24), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--steps", type=int, default=60, help="of every task")
    parser.add_argument("--seeds", type=int, default=1, help="of the order and all else; 1: liver, lung, tumour")
    parser.add_argument("--backbone", default="vit_micro")
    parser.add_argument("--weights", help="of the backbone, a file")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    data = given.out / "data"
    if not data.exists():
        for label, name in ORGANS.items():
            drawn(given.source / name, data / label, label, tuple(given.cases))
    epochs = max(1, given.steps // 20)
    encoder = {"backbone.name": given.backbone, "backbone.weights": given.weights, "plan.image_size": given.size}
    protocol = Protocol(
        data=tuple(data / label for label in ORGANS),
        shuffle=given.seeds > 1,
        seeds=tuple(range(given.seeds)),
        settings=SETTINGS
        | encoder
        | {"precision": given.precision, "train.batch_size": given.batch}
        | {"train.epochs": epochs, "train.max_steps": given.steps // epochs},
        methods=("own", "sequential", "head", "joint"),
        prompts={method: {"blocks": "last:2"} for method in ("own", "sequential", "joint")},
    )
    console().print(table_of(run_protocol(protocol, given.out / "continual")))


if __name__ == "__main__":
    main()

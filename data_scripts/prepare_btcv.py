"""Turn BTCV ("Synapse multi-organ", abdominal CT, 13 organs) into a folder that `vpt` reads.

    python data_scripts/prepare_btcv.py --source RawData.zip --to data/btcv
    vpt check data/btcv
    vpt train data/btcv

It lies behind a login, so nothing is fetched: register at Synapse, join the challenge and download Abdomen/RawData.zip.
The split is the one of most papers: 12 named patients are the test, of the other 18 a few, always the same, validate.
The 20 scans without labels go to imagesTs/, for `vpt predict`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

from preparing import options, prepare
from volumes import in_pairs, lay_out, scans_in

from vpt.published.material import Archive, Material, Origin, write_split

ORIGIN = Origin(
    "BTCV",
    "https://www.synapse.org/#!Synapse:syn3193805",
    "1.5 GB, labelled scans of 30 patients",
    "the terms of use that one accepts at Synapse",
    "Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault - Workshop and Challenge (2015)",
    (Archive("RawData.zip"),),
    login="register at Synapse and join the challenge",
)
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal vein and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
TEST = {"0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038"}  # TransUNet
VALIDATE = 6  # of how many that are no test, one validates


def build(material: Material, new: Path) -> None:
    labels = material.folder("label")
    training = labels.parent
    images, masks = numbered(training / "img"), numbered(labels)
    pairs = in_pairs(images, masks, training)
    testing = training.parent / "Testing" / "img"
    organs = {"background": 0, **{organ: id for id, organ in enumerate(ORGANS, start=1)}}
    unlabelled = numbered(testing) if testing.is_dir() else {}
    lay_out(new, pairs, unlabelled, ORIGIN.description(organs), "CT")
    write_split(new, sides(pairs))


def numbered(folder: Path) -> dict[str, Path]:
    """btcv_0001 -> img0001.nii.gz (or label0001.nii.gz)."""
    scans = scans_in(folder) if folder.is_dir() else {}
    return {f"btcv_{found[1]}": path for name, path in scans.items() if (found := re.fullmatch(r"\D+(\d{4})", name))}


def sides(names: Iterable[str]) -> dict[str, list[str]]:
    test = {f"btcv_{number}" for number in TEST}
    others = sorted(name for name in names if name not in test)
    random.Random(0).shuffle(others)
    validate = len(others) // VALIDATE or 1
    return {"train": others[validate:], "val": others[:validate], "test": sorted(test.intersection(names))}


def main() -> None:
    prepare(ORIGIN, options(__doc__).parse_args(), build)


if __name__ == "__main__":
    main()
